// node --test clients/
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { keepTalking, reask, answered, roomOf, Silence } from './talktime-resume.mjs'

const token = (room) => `e30.${Buffer.from(JSON.stringify({ video: { room } })).toString('base64url')}.sig`
const RoomEvent = { Reconnecting: 'reconnecting', SignalReconnecting: 'signalReconnecting', Reconnected: 'reconnected',
  Disconnected: 'disconnected' }

/** A front door that gives the answers in this order. */
async function door(t, ...answers) {
  const asked = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (part) => { body += part })
    request.on('end', () => {
      asked.push({ headers: request.headers, body: JSON.parse(body) })
      const [status, headers = {}, told = {}] = answers.shift()
      response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(told))
    })
  })
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  t.after(() => { server.closeAllConnections(); server.close() })
  return { url: `http://127.0.0.1:${server.address().port}/token`, asked }
}

function naps() {
  const slept = []
  return { slept, sleep: async (ms) => { slept.push(ms) } }
}

/** Time that passes only when it is told to. */
class Clock {
  time = 0
  #sleepers = []
  now = () => this.time

  sleep = (ms, signal) => new Promise((done) => {
    const sleeper = { at: this.time + ms, wake: () => { sleeper.at = null; done() } }
    if (signal?.aborted) return done()
    signal?.addEventListener('abort', sleeper.wake)
    this.#sleepers.push(sleeper)
  })

  async to(end) {
    await this.#run(end, () => false)
    this.time = end
  }

  /** Fails when that is not so within ten minutes. */
  async until(condition) {
    await this.#run(this.time + 600000, condition)
    assert.ok(condition(), 'that never came')
  }

  async #run(end, condition) {
    await settled()
    while (!condition()) {
      this.#sleepers = this.#sleepers.filter(({ at }) => at !== null).sort((one, other) => one.at - other.at)
      const [next] = this.#sleepers
      if (!next || next.at > end) return
      this.time = next.at
      next.wake()
      await settled()
    }
  }
}

/** All that can happen without time has happened. */
async function settled() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate)
}

/** A front door in that time: the answers in this order, the last one again and again (or a promise of one). */
function front(...answers) {
  const clock = new Clock()
  const at = []
  const waiting = []
  const fetch = async (url, { headers, signal }) => {
    at.push(clock.time)
    waiting.push(headers['X-Talktime-Waiting'] === 'true')
    const gone = new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
    const [status, more = {}, told = {}] = await Promise.race([answers.length > 1 ? answers.shift() : answers[0], gone])
    return { status, headers: new Headers(more), json: async () => told }
  }
  const options = { url: 'https://front/token', first, fetch, sleep: clock.sleep, now: clock.now }
  return { clock, at, waiting, options }
}

class Room {
  did = []
  #handlers = new Map()
  on(name, handler) { this.#handlers.set(name, handler) }
  off(name) { this.#handlers.delete(name) }
  emit(name) { this.#handlers.get(name)?.() }
  async disconnect() { this.did.push('disconnect'); this.emit('disconnected') }
  async connect(url, participantToken) { this.did.push([url, participantToken]) }
}

/** Enters everywhere but at wss://a, where it waits for `open`. */
class WaitingRoom extends Room {
  async connect(url, participantToken) {
    await super.connect(url, participantToken)
    if (url === 'wss://a') await new Promise((done) => { this.open = done })
  }
}

/** At each look another check has been answered, unless it is silent; reports always come. */
class HearingRoom extends Room {
  silent = false
  #answers = 10
  #bytes = 1000
  stats = () => new Map([['pair',
    { type: 'candidate-pair', nominated: true, responsesReceived: this.#answers, bytesReceived: this.#bytes }]])
  localParticipant = { trackPublications: new Map([['microphone', { track: { getRTCStatsReport: async () => {
    if (!this.silent) this.#answers += 1
    this.#bytes += 100
    return this.stats()
  } } }]]) }
  remoteParticipants = new Map()
}

const first = { server_url: 'wss://a', participant_token: token('r1') }
const B = { server_url: 'wss://b', participant_token: token('r1') }
const moved = [201, {}, B]
const stay = [201, {}, { ...first, moved: false }]
const away = [201, {}, { ...B, moved: true }]

test('reads the room from the token', () => assert.equal(roomOf(token('rö-1')), Buffer.from('rö-1').toString('latin1')))

test('waits as told, then moves', async (t) => {
  const { url, asked } = await door(t, [425, { 'Retry-After': '2' }], [503, { 'Retry-After': '7' }], [500], moved)
  const { slept, sleep } = naps()
  const answer = await reask({ url, headers: { Authorization: 'Bearer tts_x' }, token: token('r1'), sleep })
  assert.deepEqual(answer, moved[2])
  assert.deepEqual(slept, [2000, 7000, 2000])
  assert.deepEqual(asked[0].body, { room_name: 'r1' })
  assert.equal(asked[0].headers['x-talktime-previous-token'], token('r1'))
  assert.equal(asked[0].headers.authorization, 'Bearer tts_x')
  assert.equal(asked[0].headers['x-talktime-waiting'], undefined)
})

test('stops where asking is of no use', async (t) => {
  for (const status of [400, 401, 403, 404]) {
    const { url } = await door(t, [status])
    assert.equal(await reask({ url, token: token('r1'), ...naps() }), null)
  }
})

test('asks again without a network until its patience is over', async () => {
  let clock = 0
  const answer = await reask({ url: 'http://127.0.0.1:9/token', token: token('r1'), patienceMs: 10000,
    now: () => clock, sleep: async (ms) => { clock += ms } })
  assert.equal(answer, null)
  assert.equal(clock, 10000)
})

test('who waits says so, is told of the end, and takes no refusal for it', async (t) => {
  const { url, asked } = await door(t, [425], [404])
  assert.equal(await reask({ url, token: token('r1'), waiting: true, ...naps() }), null)
  assert.deepEqual(asked.map(({ headers }) => headers['x-talktime-waiting']), ['true', 'true'])
  const refusing = await door(t, [403])
  const given = new AbortController()
  let told
  void reask({ url: refusing.url, token: token('r1'), waiting: true, signal: given.signal })
    .then((answer) => { told = answer })
  while (!refusing.asked.length) await settled()
  await settled()
  assert.equal(told, undefined)
  given.abort()
  await settled()
  assert.equal(told, null)
})

test('silence counts from the last growth', () => {
  for (const [totals, expected] of [
    [[10, 10, 10, 10, 10], [0, 0, 0, 0, 0]],
    [[10, 20, 20, 20, 20], [0, 0, 1, 2, 3]],
    [[10, 20, 20, 30, 30], [0, 0, 1, 0, 1]],
    [[10, 20, 20, null, 20], [0, 0, 1, 0, 3]],
    [[null, null, null], [0, 0, 0]],
    [[10, 20, 20, 5, 6, 6], [0, 0, 1, 2, 0, 1]],
  ]) {
    const silence = new Silence()
    assert.deepEqual(totals.map((total, at) => silence.ms(at, total)), expected)
  }
})

test('answered checks are summed over what the tracks use', async () => {
  const track = (...entries) => ({ track: { getRTCStatsReport: async () => new Map(entries.entries()) } })
  const room = {
    localParticipant: { trackPublications: new Map([
      ['microphone', track({ type: 'candidate-pair', nominated: true, responsesReceived: 21, bytesReceived: 9 },
        { type: 'candidate-pair', state: 'waiting', responsesReceived: 7 }, { type: 'inbound-rtp', bytesReceived: 7 })],
      ['muted', {}]]) },
    remoteParticipants: new Map([['agent', { trackPublications: new Map([
      ['voice', track({ type: 'candidate-pair', state: 'succeeded', responsesReceived: 300 },
        { type: 'transport', bytesReceived: 4000 })]]) }]]),
  }
  assert.equal(await answered(room), 321)
})

test('without statistics nothing is known', async () => {
  const room = (track) => ({ localParticipant: { trackPublications: new Map([['m', { track }]]) },
    remoteParticipants: new Map() })
  for (const mute of [{}, room(undefined), room({}), room({ getRTCStatsReport: async () => undefined }),
    room({ getRTCStatsReport: async () => new Map() }), room({ getRTCStatsReport: async () => { throw new Error() } }),
    room({ getRTCStatsReport: async () => new Map([['t', { type: 'candidate-pair', state: 'succeeded' }]]) })]) {
    assert.equal(await answered(mute), null)
  }
})

test('a room that keeps reconnecting is moved once', async () => {
  const { clock, at, waiting, options } = front([425], moved)
  const room = new Room()
  const told = []
  keepTalking(room, RoomEvent, { ...options, onMoved: (answer) => told.push(answer) })
  room.emit('reconnecting')
  room.emit('reconnecting')
  await clock.to(60000)
  assert.deepEqual(room.did, ['disconnect', ['wss://b', token('r1')]])
  assert.deepEqual([at, waiting, told], [[3000, 5000], [false, false], [B]])
})

test('who has lost the connection goes where it is told, even if that is the same place', async () => {
  const { clock, options } = front(stay)
  const room = new Room()
  keepTalking(room, RoomEvent, options)
  room.emit('disconnected')
  await clock.to(60000)
  assert.deepEqual(room.did, ['disconnect', ['wss://a', token('r1')]])
})

test('a connection that heals moves nothing', async () => {
  const { clock, at, options } = front(moved)
  const room = new Room()
  keepTalking(room, RoomEvent, options)
  room.emit('reconnecting')
  await clock.to(2000)
  room.emit('reconnected')
  await clock.to(60000)
  assert.deepEqual([at, room.did], [[], []])
})

test('a connection that heals lets the ask end, and goes where it moved the interview', async () => {
  for (const [answer, moves] of [[away, true], [stay, false], [[425], false], [[404], false]]) {
    for (const breaksAgain of [false, true]) {
      let give
      const { clock, at, options } = front(new Promise((done) => { give = done }), away)
      const room = new Room()
      const told = []
      const onMoved = (where) => told.push(where.server_url)
      keepTalking(room, RoomEvent, { ...options, onMoved, onEnded: () => told.push('ended') })
      room.emit('reconnecting')
      await clock.to(3500)
      room.emit('reconnected')
      if (breaksAgain) room.emit('reconnecting')
      await clock.to(4000)
      give(answer)
      await clock.to(60000)
      if (!breaksAgain) {
        assert.deepEqual([at, told], [[3000], moves ? ['wss://b'] : []])
        assert.deepEqual(room.did, moves ? ['disconnect', ['wss://b', token('r1')]] : [])
      } else {
        // Nothing has healed in the end: every answer counts as ever.
        assert.deepEqual(at, answer[0] === 425 ? [3000, 6000] : [3000])
        assert.deepEqual(told, answer[0] === 404 ? ['ended'] : [answer === stay ? 'wss://a' : 'wss://b'])
      }
    }
  }
})

test('the end of the interview is told, and nothing is asked after stop', async () => {
  const { clock, at, options } = front([404])
  const told = []
  const room = new Room()
  keepTalking(room, RoomEvent, { ...options, onEnded: () => told.push('ended') })
  room.emit('disconnected')
  const other = new Room()
  const stop = keepTalking(other, RoomEvent, options)
  stop()
  other.emit('disconnected')
  await clock.to(60000)
  assert.deepEqual([at, told], [[0], ['ended']])
})

test('who hangs up while the old server is left is not brought back', async () => {
  const { clock, options } = front(moved)
  const room = new Room()
  let stop
  room.disconnect = async () => { room.did.push('disconnect'); stop() }
  stop = keepTalking(room, RoomEvent, { ...options, onMoved: () => room.did.push('moved') })
  room.emit('reconnecting')
  await clock.to(60000)
  assert.deepEqual(room.did, ['disconnect'])
})

test('who hangs up while the next server is entered leaves it again', async () => {
  const { clock, at, options } = front(moved)
  const room = new Room()
  let enter
  room.connect = (server) => { room.did.push(server); return new Promise((done) => { enter = done }) }
  const talk = keepTalking(room, RoomEvent, { ...options, onMoved: () => room.did.push('moved') })
  room.emit('reconnecting')
  await clock.until(() => enter)
  talk.stop()
  enter()
  await clock.to(60000)
  assert.deepEqual(room.did, ['disconnect', 'wss://b', 'disconnect'])
  assert.deepEqual(at, [3000])
})

test('the first entry asks nobody when it works', async () => {
  const { clock, at, options } = front(moved)
  const room = new Room()
  await keepTalking(room, RoomEvent, options).connect()
  await clock.to(60000)
  assert.deepEqual([room.did, at], [[['wss://a', token('r1')]], []])
})

test('who cannot enter at first asks again and is not called moved', async () => {
  const { clock, at, waiting, options } = front([425], moved)
  const room = new Room()
  const connect = room.connect
  room.connect = async (server, given) => {
    if (server === 'wss://a') { room.emit('disconnected'); throw new Error('refused') }
    await connect.call(room, server, given)
  }
  const told = []
  await entered(clock, keepTalking(room, RoomEvent, { ...options, onMoved: () => told.push('moved') }))
  assert.deepEqual(room.did.at(-1), ['wss://b', token('r1')])
  assert.deepEqual([at, waiting, told], [[2000, 4000], [false, false], []])
})

test('who waits at a door that does not open goes where the interview has moved', async () => {
  const { clock, at, waiting, options } = front(stay, away)
  const room = new WaitingRoom()
  const told = []
  await entered(clock, keepTalking(room, RoomEvent, { ...options, onMoved: () => told.push('moved') }))
  assert.equal(clock.time, 3000)
  room.open()
  await clock.to(60000)
  assert.deepEqual(room.did, [['wss://a', token('r1')], 'disconnect', ['wss://b', token('r1')]],
    'what is still on its way is hung up')
  assert.deepEqual([at, waiting, told], [[2000, 3000], [true, true], []])
})

test('who is told that the room is where it was goes on waiting', async () => {
  for (const [answer, asked] of [[stay, [2000, 3000, 4000]], [[201, {}, first], [2000, 3000, 4000]], [[403], [2000]]]) {
    const { clock, at, options } = front(answer)
    const room = new WaitingRoom()
    const entering = keepTalking(room, RoomEvent, options).connect()
    await clock.to(4500)
    room.open()
    await entering
    await clock.to(60000)
    assert.deepEqual([room.did, at], [[['wss://a', token('r1')]], asked])
  }
})

test('a door that never opens is left after 15 s', async () => {
  const { clock, waiting, options } = front(...Array(13).fill(stay), moved)
  const room = new WaitingRoom()
  await entered(clock, keepTalking(room, RoomEvent, options))
  assert.equal(clock.time, 17000)
  assert.deepEqual(room.did.at(-1), ['wss://b', token('r1')])
  assert.deepEqual(waiting, [...Array(13).fill(true), false])
})

test('an answer that comes with the connection is followed', async () => {
  let answer
  const { clock, options } = front(new Promise((done) => { answer = done }))
  const room = new WaitingRoom()
  const entering = keepTalking(room, RoomEvent, options).connect()
  await clock.to(2500)
  answer(away)
  room.open()
  await entering
  assert.deepEqual(room.did, [['wss://a', token('r1')], 'disconnect', ['wss://b', token('r1')]])
})

test('where the answer came too late the server hangs up, and that leads to the place', async () => {
  const { clock, waiting, options } = front(new Promise(() => {}), moved)
  const room = new WaitingRoom()
  const entering = keepTalking(room, RoomEvent, options).connect()
  await clock.to(2500)
  room.open()
  await entering
  room.emit('disconnected')
  await clock.to(60000)
  assert.deepEqual(room.did.at(-1), ['wss://b', token('r1')])
  assert.deepEqual(waiting, [true, false])
})

test('an interview that ended before anybody was in it says what failed', async () => {
  const { clock, options } = front([404])
  const room = new Room()
  room.connect = async () => { throw new Error('refused') }
  const told = []
  const talk = keepTalking(room, RoomEvent, { ...options, onEnded: () => told.push('ended') })
  await assert.rejects(entered(clock, talk), /refused/)
  assert.deepEqual(told, ['ended'])
})

test('who waits for an interview that has ended waits no longer', async () => {
  const { clock, at, options } = front([404])
  const told = []
  const talk = keepTalking(new WaitingRoom(), RoomEvent, { ...options, onEnded: () => told.push('ended') })
  await assert.rejects(entered(clock, talk), /was over/)
  assert.deepEqual([at, told], [[2000], ['ended']])
})

test('who hangs up while waiting is not brought in', async () => {
  let answer
  const { clock, options } = front(new Promise((done) => { answer = done }))
  const room = new WaitingRoom()
  const told = []
  const talk = keepTalking(room, RoomEvent, { ...options, onEnded: () => told.push('ended') })
  const entering = assert.rejects(talk.connect(), /was over/)
  await clock.to(2500)
  talk.stop()
  answer(away)
  await entering
  assert.deepEqual([room.did, told], [[['wss://a', token('r1')], 'disconnect'], []])
})

test('a server that cannot be entered is asked about again', async () => {
  const { clock, at, options } = front(moved, [201, {}, { server_url: 'wss://c', participant_token: token('r1') }])
  const room = new Room()
  const connect = room.connect
  room.connect = async (server, given) => {
    if (server === 'wss://b') throw new Error('refused')
    await connect.call(room, server, given)
  }
  keepTalking(room, RoomEvent, options)
  room.emit('disconnected')
  await clock.to(60000)
  assert.deepEqual(room.did.at(-1), ['wss://c', token('r1')])
  assert.deepEqual(at, [0, 2000])
})


async function silentTalk(...answers) {
  const door = front(...answers)
  const room = new HearingRoom()
  const told = []
  const talk = keepTalking(room, RoomEvent,
    { ...door.options, onMoved: (answer) => told.push(answer.server_url), onEnded: () => told.push('ended') })
  await talk.connect()
  await door.clock.to(5000)
  room.silent = true
  return { ...door, room, told, talk }
}
const here = [['wss://a', token('r1')]]
const there = [...here, 'disconnect', ['wss://b', token('r1')]]

test('as long as nothing is heard it asks, and stays where it is told to', async () => {
  const { clock, at, waiting, room } = await silentTalk(stay)
  await clock.to(8900)
  assert.deepEqual(at, [])
  await clock.to(13500)
  assert.deepEqual([at, waiting], [[9000, 11000, 13000], [true, true, true]])
  room.silent = false
  await clock.to(60000)
  assert.deepEqual([at.length, room.did], [3, here], 'it hears again')
  room.silent = true
  await clock.to(64500)
  assert.deepEqual(at.slice(3), [64000], 'and falls silent again')
})

test('it moves once when the interview has moved', async () => {
  const { clock, at, room, told } = await silentTalk(stay, away)
  await clock.to(60000)
  assert.deepEqual([at, room.did, told], [[9000, 11000], there, ['wss://b']])
})

test('an older front door names another server or the same', async () => {
  for (const [answer, did] of [[[201, {}, first], here], [moved, there]]) {
    const { clock, room } = await silentTalk(answer)
    await clock.to(10000)
    assert.deepEqual(room.did, did)
  }
})

test('a refusal ends no connection, an end does', async () => {
  for (const status of [400, 401, 403]) {
    const { clock, at, room, told } = await silentTalk([status])
    await clock.to(60000)
    assert.deepEqual([at, room.did, told], [[9000], here, []])
  }
  const { clock, at, room, told } = await silentTalk([404])
  await clock.to(60000)
  assert.deepEqual([at, room.did, told], [[9000], [...here, 'disconnect'], ['ended']])
})

test('statistics that fail, hang or never grew are no silence', async () => {
  for (const stats of [() => { throw new Error('no statistics') }, () => new Promise(() => {}), () => new Map()]) {
    const { clock, at, room } = await silentTalk(away)
    room.stats = stats
    await clock.to(60000)
    assert.deepEqual([at, room.did], [[], here])
  }
  const { clock, at, options } = front(away)
  const room = new HearingRoom()
  room.silent = true
  await keepTalking(room, RoomEvent, options).connect()
  await clock.to(60000)
  assert.deepEqual(at, [])
})

test('a connection that breaks takes over', async () => {
  for (const answered of [false, true]) {
    let answer
    const { clock, at, waiting, room, told } = await silentTalk(new Promise((done) => { answer = done }), away)
    await clock.to(10000)
    room.emit('reconnecting')
    if (answered) answer(away)
    await clock.to(60000)
    assert.deepEqual([at, waiting], answered ? [[9000], [true]] : [[9000, 13000], [true, false]])
    assert.deepEqual([room.did, told], [there, ['wss://b']])
  }
})

test('who hears again lets the ask end, and follows where it moved the interview', async () => {
  for (const [answer, did] of [[away, there], [stay, here]]) {
    for (const heals of [(room) => { room.silent = false }, (room) => { room.emit('reconnecting'); room.emit('reconnected') }]) {
      let give
      const { clock, at, room } = await silentTalk(new Promise((done) => { give = done }), stay)
      await clock.to(10000)
      heals(room)
      room.silent = false
      await clock.to(11500)
      give(answer)
      await clock.to(60000)
      assert.deepEqual([at, room.did], [[9000], did])
    }
  }
})

test('who was told to stay and then breaks has one asker', async () => {
  const { clock, at, waiting, room } = await silentTalk(stay, [425])
  await clock.to(10000)
  room.emit('reconnecting')
  await clock.to(16000)
  assert.deepEqual([at, waiting], [[9000, 13000, 15000], [true, false, false]])
})

test('an ask ends with the statistics that it rests on', async () => {
  const { clock, at, room } = await silentTalk(stay)
  await clock.to(10000)
  room.stats = () => new Promise(() => {})
  await clock.to(60000)
  assert.deepEqual(at, [9000, 11000])
})

test('a connection that has healed must be heard before it is silent', async () => {
  const { clock, at, room } = await silentTalk(stay)
  await clock.to(7000)
  room.emit('reconnecting')
  await clock.to(9500)
  room.emit('reconnected')
  await clock.to(60000)
  assert.deepEqual(at, [])
})

test('who hangs up while it asks is not brought back', async () => {
  let answer
  const { clock, at, room, told, talk } = await silentTalk(new Promise((done) => { answer = done }))
  await clock.to(10000)
  talk.stop()
  answer(away)
  await clock.to(60000)
  assert.deepEqual([at, room.did, told], [[9000], here, []])
})

/** In, or what connect() rejected with, however long it takes. */
async function entered(clock, talk) {
  let over = false
  const entering = talk.connect().finally(() => { over = true })
  entering.catch(() => {})
  await clock.until(() => over)
  await entering
}
