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
// network: wait and ask again. 404: the interview has ended. If the connection heals by itself meanwhile, nothing is
// asked any more; an ask that is under way is heard to its end, for it may be what moves the interview.
// connect() does the same for the first entry: where it fails, or takes 15 s, the front door is asked again. It rejects
// with what the Room said when the interview has ended before anybody was in it.
//
// The SDK is slow to notice that only the media's path (UDP) is cut, the front door is not. So it is asked, too, with
// `X-Talktime-Waiting: true`, when entering takes more than 2 s, and when the checks of a connected Room's path
// have had no answer for 4 s (by the statistics of its tracks, from connect() on), until that is over. 201 says with
// `moved` whether to connect with what came, or to keep what there is.

export const FIRST_MS = 3000
export const EVERY_MS = 2000
export const ENTER_MS = 15000
export const PATIENCE_MS = 120000
export const WAIT_MS = 2000 // of an entry: until the front door is asked,
export const AGAIN_MS = 1000 // and after it has said that the room is where it was
export const LOOK_MS = 1000
export const SILENT_MS = 4000 // WebRTC checks its path every 2.5 s; a look may see an answer a second late

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
 *   the url); token: the participant token used so far; waiting: there is a connection, or one in the making, which is
 *   cut by no refusal and no impatience of ours: null is only an end, or what `signal` says; fetch, sleep, now: for
 *   tests.
 */
export async function reask({ url, headers = {}, token, signal, waiting = false, patienceMs = PATIENCE_MS,
  fetch = globalThis.fetch, sleep = pause, now = Date.now }) {
  const body = JSON.stringify({ room_name: roomOf(token) })
  const until = waiting ? Infinity : now() + patienceMs
  const more = { 'Content-Type': 'application/json', 'X-Talktime-Previous-Token': token,
    ...(waiting && { 'X-Talktime-Waiting': 'true' }) }
  while (!signal?.aborted && now() < until) {
    let wait = EVERY_MS
    try {
      const answer = await fetch(url, { method: 'POST', body, signal, headers: { ...headers, ...more } })
      if (answer.status === 201) return await answer.json()
      if (answer.status === 404) return null
      if ([400, 401, 403].includes(answer.status)) {
        if (!waiting) return null
        wait = Infinity
      }
      const seconds = Number(answer.headers.get('Retry-After'))
      if (seconds > 0 && wait !== Infinity) wait = seconds * 1000
    } catch (error) {
      if (signal?.aborted) return null // else no network: ask again
    }
    await sleep(wait, signal)
  }
  return null
}

/** How long nothing has been received. Only what was seen to grow can fall silent. */
export class Silence {
  #total = null
  #grewAt = Infinity

  /** @param total received so far; null: unknown, which is no silence */
  ms(now, total) {
    if (total === null) return 0
    if (this.#total !== null && total > this.#total) this.#grewAt = now
    this.#total = total
    return Math.max(0, now - this.#grewAt)
  }
}

/**
 * Checks of the paths of the Room's tracks that were answered, by their own statistics; null where there are none.
 * What else comes in says nothing: a server that gets nothing from here goes on sending reports.
 */
export async function answered(room) {
  try {
    const participants = [room.localParticipant, ...room.remoteParticipants.values()]
    const tracks = participants.flatMap((one) => [...one.trackPublications.values()].map(({ track }) => track))
    const reports = await Promise.all(tracks.map((track) => track?.getRTCStatsReport()))
    const counts = reports.flatMap((report) => [...(report?.values() ?? [])]).flatMap((one) => {
      const used = one.type === 'candidate-pair' && (one.nominated || one.state === 'succeeded')
      return used ? [one.responsesReceived] : []
    }).filter(Number.isFinite)
    return counts.length ? counts.reduce((sum, count) => sum + count) : null
  } catch (error) {
    return null
  }
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
  const now = rest.now ?? Date.now
  const enterMs = rest.enterMs ?? ENTER_MS
  let server = first.server_url
  let token = first.participant_token
  let asking = null // about a lost connection: { stop, mended }, `mended` when that has healed by itself
  let waiting = null // asks about a silent Room: { drop, heard }, `heard` between two asks
  let silence = new Silence()
  const life = new AbortController()
  let stopped = false
  let moving = false // what the Room tells meanwhile is our own doing

  /** The answer that led the Room in; null for who has hung up on the way, and is not brought back. */
  async function enter(answer) {
    for (let next = answer; next; ) {
      if (stopped) return null
      answer = next
      server = answer.server_url
      token = answer.participant_token
      try {
        next = await connected()
      } catch (error) {
        await room.disconnect() // one that comes late is hung up
        throw error
      }
      if (next) await room.disconnect()
    }
    silence = new Silence()
    if (stopped) await room.disconnect()
    return stopped ? null : answer
  }

  /** Null when the Room is in; or where the interview has moved. Rejects when that takes too long, or is over. */
  async function connected() {
    const over = new AbortController()
    let told = null
    const asked = elsewhere(WAIT_MS, AGAIN_MS, over.signal).then((answer) => {
      told = answer
      if (answer || over.signal.aborted) return
      end()
      throw new Error('the interview was over before there was a connection')
    })
    const late = sleep(enterMs, over.signal).then(() => {
      if (!over.signal.aborted) throw new Error(`no connection within ${enterMs / 1000} s`)
    })
    try {
      await Promise.race([asked, room.connect(server, token), late])
    } finally {
      over.abort()
    }
    // An answer that comes together with the connection counts: the interview is no longer where that leads.
    await asked.catch(() => {})
    return told
  }

  /** Asks while there is a connection, or one in the making: where the interview is once it is not here; null: over. */
  async function elsewhere(afterMs, everyMs, signal, nap = sleep) {
    for (let wait = afterMs; ; wait = everyMs) {
      await nap(wait, signal)
      if (signal.aborted || stopped) return null
      const answer = await reask({ ...rest, url, headers, token, signal, waiting: true, sleep: nap })
      if (stopped || !answer) return null
      if (isElsewhere(answer)) return answer
    }
  }

  const isElsewhere = (answer) => answer.moved ?? answer.server_url !== server

  /** Asks, unless `answer` is one, until the Room is in: what led there; null when it is over or another call asks. */
  async function enterElsewhere(afterMs, answer) {
    if (asking || stopped) return null
    hush()
    const mine = (asking = { stop: new AbortController(), mended: new AbortController() })
    // Between two asks is where to stop: one that is under way may be what moves the interview.
    const unlessMended = async (ms) => {
      await sleep(ms, mine.mended.signal)
      if (mine.mended.signal.aborted) mine.stop.abort()
    }
    try {
      for (let wait = afterMs; ; wait = EVERY_MS, answer = null) {
        if (!answer) {
          await unlessMended(wait)
          const ask = { ...rest, url, headers, token, signal: mine.stop.signal, sleep: unlessMended }
          answer = mine.stop.signal.aborted ? null : await reask(ask)
          if (mine.mended.signal.aborted && !(answer && isElsewhere(answer))) return null
        }
        if (mine.stop.signal.aborted || stopped) return null
        if (!answer) { end(); return null }
        const before = moving
        moving = true
        drop()
        try {
          await room.disconnect()
          return await enter(answer)
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

  async function follow(afterMs, told) {
    const answer = await enterElsewhere(afterMs, told)
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
      await enter(first)
    } catch (error) {
      if (!(await enterElsewhere(EVERY_MS))) throw error
    } finally {
      moving = false
    }
    void watch()
  }

  /** Whether the Room hears anything, once a second. */
  async function watch() {
    while (!stopped) {
      await sleep(LOOK_MS, life.signal)
      const present = silence
      // Statistics that do not come say nothing.
      const total = await Promise.race([answered(room), sleep(LOOK_MS, life.signal).then(() => null)])
      if (present.ms(now(), total) < SILENT_MS) hush()
      else if (present === silence && !(asking || waiting || moving || stopped)) void askSilently()
    }
  }

  async function askSilently() {
    const mine = (waiting = { drop: new AbortController(), heard: new AbortController() })
    // Between two asks is where to stop: one that is under way may be what moves the interview.
    const unlessHeard = async (ms) => {
      await sleep(ms, mine.heard.signal)
      if (mine.heard.signal.aborted) mine.drop.abort()
    }
    const answer = await elsewhere(0, EVERY_MS, mine.drop.signal, unlessHeard)
    if (waiting === mine) waiting = null
    if (mine.drop.signal.aborted) return
    // The connection may have broken meanwhile; this is the answer to both.
    forget()
    if (answer) return follow(0, answer)
    end()
    await room.disconnect()
  }

  const hush = () => waiting?.heard.abort()
  const drop = () => { hush(); waiting?.drop.abort(); waiting = null }
  const end = () => {
    if (stopped) return
    stopped = true
    life.abort()
    onEnded()
  }
  const forget = () => { asking?.stop.abort(); asking?.mended.abort(); asking = null }
  const quiet = () => { hush(); silence = new Silence() }
  const healed = () => { if (!moving) { quiet(); asking?.mended.abort() } }
  const lost = () => {
    if (moving) return
    // Broken again while an ask is under way that was made for the break before.
    if (asking?.mended.signal.aborted) asking.mended = new AbortController()
    void follow(FIRST_MS)
  }
  // A removed participant or a deleted room (reasons 4, 5) has ended; the front door says so at once (404).
  const gone = () => { if (!moving) { drop(); quiet(); forget(); void follow(0) } }
  const handlers = [[RoomEvent.Reconnecting, lost], [RoomEvent.SignalReconnecting, lost],
    [RoomEvent.Reconnected, healed], [RoomEvent.Disconnected, gone]].filter(([name]) => name)
  for (const [name, handler] of handlers) room.on(name, handler)

  const stop = () => {
    stopped = true
    life.abort()
    drop()
    quiet()
    forget()
    for (const [name, handler] of handlers) room.off(name, handler)
  }
  return Object.assign(stop, { connect, stop })
}

function pause(ms, signal) {
  return new Promise((done) => {
    const finish = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', finish)
      done()
    }
    const timer = ms === Infinity ? undefined : setTimeout(finish, ms)
    signal?.addEventListener('abort', finish)
    if (signal?.aborted) finish()
  })
}
