// Talktime: go on with an interview whose media server died. One file, no dependencies.
//
//   import { Room, RoomEvent } from 'livekit-client'
//   import { keepTalking } from './talktime-resume.mjs'
//
//   const room = new Room()
//   const first = await (await fetch(url, { method: 'POST', headers })).json()   // {server_url, participant_token}
//   const talk = keepTalking(room, RoomEvent, { url, headers, first, onEnded: () => showGoodbye() })
//   await talk.connect()
//   // ... later, when the participant hangs up: talk.stop(); room.disconnect()
//
// What it does: when the connection has been reconnecting for 3 s, or is lost, it asks the front door again, every 2 s
// (or what Retry-After says), with the room's name and the old token. 201: connect with what came. 425, 429, 5xx, no
// network: wait and ask again. 404: the interview has ended. If the connection heals by itself meanwhile, nothing moves.
// connect() does the same for the first entry: where it fails, or takes 15 s, the front door is asked again. It rejects
// with what the Room said when the interview has ended before anybody was in it.

export const FIRST_MS = 3000
export const EVERY_MS = 2000
export const ENTER_MS = 15000
export const PATIENCE_MS = 120000

/** The room a LiveKit token is for. */
export function roomOf(token) {
  const part = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')
  return JSON.parse(atob(part.padEnd(Math.ceil(part.length / 4) * 4, '='))).video.room
}

/**
 * Asks until there is an answer: {server_url, participant_token}, or null when the interview has ended, when asking is
 * of no use (400, 401, 403), when the patience is over, or when `signal` says stop.
 *
 * @param {object} ask url: the token endpoint; headers: with the credential used before (Authorization; or a ticket in
 *   the url); token: the participant token used so far; fetch, sleep, now: for tests.
 */
export async function reask({ url, headers = {}, token, signal, patienceMs = PATIENCE_MS,
  fetch = globalThis.fetch, sleep = pause, now = Date.now }) {
  const body = JSON.stringify({ room_name: roomOf(token) })
  const until = now() + patienceMs
  while (!signal?.aborted && now() < until) {
    let wait = EVERY_MS
    try {
      const answer = await fetch(url, {
        method: 'POST', body, signal,
        headers: { ...headers, 'Content-Type': 'application/json', 'X-Talktime-Previous-Token': token },
      })
      if (answer.status === 201) return await answer.json()
      if ([400, 401, 403, 404].includes(answer.status)) return null
      const seconds = Number(answer.headers.get('Retry-After'))
      if (seconds > 0) wait = seconds * 1000
    } catch (error) {
      if (signal?.aborted) return null // else no network: ask again
    }
    await sleep(wait, signal)
  }
  return null
}

/**
 * Follows a livekit-client Room and moves it when it must. Returns `connect` and `stop`; the result called itself is
 * `stop`, too.
 *
 * @param {object} room livekit-client Room; @param {object} RoomEvent its event names
 * @param {object} options url, headers, first {server_url, participant_token}; onMoved(answer), onEnded()
 */
export function keepTalking(room, RoomEvent, { url, headers, first, onMoved = () => {}, onEnded = () => {}, ...rest }) {
  const sleep = rest.sleep ?? pause
  const enterMs = rest.enterMs ?? ENTER_MS
  let token = first.participant_token
  let asking = null
  let stopped = false
  let moving = false // what the Room tells meanwhile is our own doing

  /** Whether the Room is in; who has hung up on the way is not brought back. */
  async function enter(server) {
    if (stopped) return false
    try {
      await within(room.connect(server, token), enterMs)
    } catch (error) {
      await room.disconnect() // one that comes late is hung up
      throw error
    }
    if (stopped) await room.disconnect()
    return !stopped
  }

  /** Asks until the Room is in somewhere: the answer that led there, null when it is over or another call asks. */
  async function elsewhere(afterMs) {
    if (asking || stopped) return null
    const mine = (asking = new AbortController())
    try {
      for (let wait = afterMs; ; wait = EVERY_MS) {
        await sleep(wait, mine.signal)
        const answer = mine.signal.aborted ? null : await reask({ url, headers, token, signal: mine.signal, ...rest })
        if (mine.signal.aborted) return null
        if (!answer) { stopped = true; onEnded(); return null }
        token = answer.participant_token
        const before = moving
        moving = true
        try {
          await room.disconnect()
          return (await enter(answer.server_url)) ? answer : null
        } catch (error) {
          // not in: ask again
        } finally {
          moving = before
        }
      }
    } finally {
      if (asking === mine) asking = null
    }
  }

  async function follow(afterMs) {
    const answer = await elsewhere(afterMs)
    if (!answer) return
    try {
      await onMoved(answer)
    } catch (error) {
      void follow(EVERY_MS)
    }
  }

  async function connect() {
    moving = true
    try {
      await enter(first.server_url)
    } catch (error) {
      if (!(await elsewhere(EVERY_MS))) throw error
    } finally {
      moving = false
    }
  }

  const healed = () => { if (!moving) { asking?.abort(); asking = null } }
  const lost = () => { if (!moving) void follow(FIRST_MS) }
  // A removed participant or a deleted room (reasons 4, 5) has ended; the front door says so at once (404).
  const gone = () => { if (!moving) { asking?.abort(); asking = null; void follow(0) } }
  const handlers = [[RoomEvent.Reconnecting, lost], [RoomEvent.SignalReconnecting, lost],
    [RoomEvent.Reconnected, healed], [RoomEvent.Disconnected, gone]].filter(([name]) => name)
  for (const [name, handler] of handlers) room.on(name, handler)

  const stop = () => {
    stopped = true
    asking?.abort()
    for (const [name, handler] of handlers) room.off(name, handler)
  }
  return Object.assign(stop, { connect, stop })
}

/** Rejects when it takes longer. */
async function within(work, ms) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no connection within ${ms / 1000} s`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
  })
}
