// node --test clients/
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { keepTalking, reask, roomOf } from './talktime-resume.mjs'

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

class Room {
  did = []
  #handlers = new Map()
  on(name, handler) { this.#handlers.set(name, handler) }
  off(name) { this.#handlers.delete(name) }
  emit(name) { this.#handlers.get(name)?.() }
  async disconnect() { this.did.push('disconnect'); this.emit('disconnected') }
  async connect(url, participantToken) { this.did.push([url, participantToken]) }
}

const moved = [201, {}, { server_url: 'wss://b', participant_token: token('r1') }]

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

test('a room that keeps reconnecting is moved once', async (t) => {
  const { url, asked } = await door(t, [425], moved)
  const { slept, sleep } = naps()
  const room = new Room()
  await new Promise((onMoved) => {
    keepTalking(room, RoomEvent, { url, first: { participant_token: token('r1') }, sleep, onMoved })
    room.emit('reconnecting')
    room.emit('reconnecting')
  })
  assert.deepEqual(room.did, ['disconnect', ['wss://b', token('r1')]])
  assert.deepEqual(slept, [3000, 2000])
  assert.equal(asked.length, 2)
})

test('a connection that heals moves nothing', async (t) => {
  const { url, asked } = await door(t)
  const room = new Room()
  let wake
  keepTalking(room, RoomEvent, { url, first: { participant_token: token('r1') },
    sleep: () => new Promise((done) => { wake = done }) })
  room.emit('reconnecting')
  room.emit('reconnected')
  wake()
  await new Promise((done) => setTimeout(done, 50))
  assert.equal(asked.length, 0)
  assert.deepEqual(room.did, [])
})

test('the end of the interview is told, and nothing is asked after stop', async (t) => {
  const { url, asked } = await door(t, [404])
  const room = new Room()
  await new Promise((onEnded) => {
    keepTalking(room, RoomEvent, { url, first: { participant_token: token('r1') }, ...naps(), onEnded })
    room.emit('disconnected')
  })
  const other = new Room()
  const stop = keepTalking(other, RoomEvent, { url, first: { participant_token: token('r1') }, ...naps() })
  stop()
  other.emit('disconnected')
  await new Promise((done) => setTimeout(done, 50))
  assert.equal(asked.length, 1)
})

const first = { server_url: 'wss://a', participant_token: token('r1') }

test('who hangs up while the old server is left is not brought back', async (t) => {
  const { url } = await door(t, moved)
  const room = new Room()
  let stop
  room.disconnect = async () => { room.did.push('disconnect'); stop() }
  stop = keepTalking(room, RoomEvent, { url, first, ...naps(), onMoved: () => room.did.push('moved') })
  room.emit('reconnecting')
  await until(() => room.did.length)
  await settled()
  assert.deepEqual(room.did, ['disconnect'])
})

test('who hangs up while the next server is entered leaves it again', async (t) => {
  const { url, asked } = await door(t, moved)
  const room = new Room()
  let enter
  room.connect = (server) => { room.did.push(server); return new Promise((done) => { enter = done }) }
  const talk = keepTalking(room, RoomEvent, { url, first, ...naps(), onMoved: () => room.did.push('moved') })
  room.emit('reconnecting')
  await until(() => enter)
  talk.stop()
  enter()
  await settled()
  assert.deepEqual(room.did, ['disconnect', 'wss://b', 'disconnect'])
  assert.equal(asked.length, 1)
})

test('the first entry asks nobody when it works', async (t) => {
  const { url, asked } = await door(t)
  const room = new Room()
  await keepTalking(room, RoomEvent, { url, first, ...naps() }).connect()
  assert.deepEqual(room.did, [['wss://a', token('r1')]])
  assert.equal(asked.length, 0)
})

test('who cannot enter at first asks again and is not called moved', async (t) => {
  const { url, asked } = await door(t, [425], moved)
  const { slept, sleep } = naps()
  const room = new Room()
  const connect = room.connect
  room.connect = async (server, given) => {
    if (server === 'wss://a') { room.emit('disconnected'); throw new Error('refused') }
    await connect.call(room, server, given)
  }
  const told = []
  await keepTalking(room, RoomEvent, { url, first, sleep, onMoved: () => told.push('moved') }).connect()
  assert.deepEqual(room.did.at(-1), ['wss://b', token('r1')])
  assert.deepEqual(slept, [2000, 2000])
  assert.equal(asked.length, 2)
  assert.deepEqual(told, [])
})

test('who waits at a door that does not open asks again', async (t) => {
  const { url } = await door(t, moved)
  const room = new Room()
  const connect = room.connect
  room.connect = (server, given) => (server === 'wss://a' ? new Promise(() => {}) : connect.call(room, server, given))
  await keepTalking(room, RoomEvent, { url, first, ...naps(), enterMs: 20 }).connect()
  assert.deepEqual(room.did.at(-1), ['wss://b', token('r1')])
  assert.equal(room.did[0], 'disconnect', 'what is still on its way is hung up')
})

test('an interview that ended before anybody was in it says what failed', async (t) => {
  const { url } = await door(t, [404])
  const room = new Room()
  room.connect = async () => { throw new Error('refused') }
  const told = []
  const talk = keepTalking(room, RoomEvent, { url, first, ...naps(), onEnded: () => told.push('ended') })
  await assert.rejects(talk.connect(), /refused/)
  assert.deepEqual(told, ['ended'])
})

test('a server that cannot be entered is asked about again', async (t) => {
  const { url, asked } = await door(t, moved, [201, {}, { server_url: 'wss://c', participant_token: token('r1') }])
  const room = new Room()
  const connect = room.connect
  room.connect = async (server, given) => {
    if (server === 'wss://b') throw new Error('refused')
    await connect.call(room, server, given)
  }
  await new Promise((onMoved) => {
    keepTalking(room, RoomEvent, { url, first, ...naps(), onMoved })
    room.emit('disconnected')
  })
  assert.deepEqual(room.did.at(-1), ['wss://c', token('r1')])
  assert.equal(asked.length, 2)
})

async function until(condition) {
  while (!condition()) await settled()
}

function settled() {
  return new Promise((done) => setTimeout(done, 20))
}
