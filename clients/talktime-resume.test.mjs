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
