// Talktime: go on with an interview whose media server died. One file, no dependencies.
//
//   import { Room, RoomEvent } from 'livekit-client'
//   import { keepTalking } from './talktime-resume.mjs'
//
//   const room = new Room()
//   const first = await (await fetch(url, { method: 'POST', headers })).json()   // {server_url, participant_token}
//   const stop = keepTalking(room, RoomEvent, { url, headers, first, onEnded: () => showGoodbye() })
//   await room.connect(first.server_url, first.participant_token)
//   // ... later, when the participant hangs up: stop(); room.disconnect()
//
// What it does: when the connection has been reconnecting for 3 s, or is lost, it asks the front door again, every 2 s
// (or what Retry-After says), with the room's name and the old token. 201: connect with what came. 425, 429, 5xx, no
// network: wait and ask again. 404: the interview has ended. If the connection heals by itself meanwhile, nothing moves.

export const FIRST_MS = 3000
export const EVERY_MS = 2000
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
 * Follows a livekit-client Room and moves it when it must. Returns a function that stops that.
 *
 * @param {object} room livekit-client Room; @param {object} RoomEvent its event names
 * @param {object} options url, headers, first {server_url, participant_token}; onMoved(answer), onEnded()
 */
export function keepTalking(room, RoomEvent, { url, headers, first, onMoved = () => {}, onEnded = () => {}, ...rest }) {
  const sleep = rest.sleep ?? pause
  let token = first.participant_token
  let asking = null
  let stopped = false

  async function ask(afterMs) {
    if (asking || stopped) return
    const mine = (asking = new AbortController())
    await sleep(afterMs, mine.signal)
    const answer = mine.signal.aborted ? null : await reask({ url, headers, token, signal: mine.signal, ...rest })
    if (mine.signal.aborted) return
    if (!answer) { asking = null; stopped = true; onEnded(); return }
    token = answer.participant_token
    try {
      moving = true
      await room.disconnect()
      await room.connect(answer.server_url, token)
      asking = null
      onMoved(answer)
    } catch (error) {
      asking = null
      void ask(EVERY_MS)
    } finally {
      moving = false
    }
  }
  let moving = false
  const healed = () => { if (!moving) { asking?.abort(); asking = null } }
  const lost = () => { if (!moving) void ask(FIRST_MS) }
  // A removed participant or a deleted room (reasons 4, 5) has ended; the front door says so at once (404).
  const gone = () => { if (!moving) { asking?.abort(); asking = null; void ask(0) } }
  const handlers = [[RoomEvent.Reconnecting, lost], [RoomEvent.SignalReconnecting, lost],
    [RoomEvent.Reconnected, healed], [RoomEvent.Disconnected, gone]].filter(([name]) => name)
  for (const [name, handler] of handlers) room.on(name, handler)
  return () => {
    stopped = true
    asking?.abort()
    for (const [name, handler] of handlers) room.off(name, handler)
  }
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
  })
}
