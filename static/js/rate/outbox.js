// Scores that the server has not acknowledged yet. Each entry is one save: ids, numbers and times, never text.
//
// An operation that has been sent once keeps its id and its base revision until it is answered, so a resend after a
// lost answer is recognised. Changes made meanwhile wait as one newer operation behind it.
// Notes are text and stay in memory only.

const RETRY_FIRST_MS = 2000;
const RETRY_MOST_MS = 60000;
const TIMEOUT_MS = 15000;

export class Outbox {
  constructor({ seat, send, isOurs, onState, onSaved, onRefused, storage = window.localStorage }) {
    this.prefix = `qingting:${seat}:`;
    this.send = send; // (placement, operation, note) => {status, body}; rejects when there is no answer
    this.isOurs = isOurs; // () => whether the session is still this seat's; rejects when there is no answer
    this.onState = onState;
    this.onSaved = onSaved;
    this.onRefused = onRefused;
    this.lines = new Map(); // placement ► {sent, next}
    this.notes = new Map(); // placement ► text not yet acknowledged
    this.revs = new Map(); // placement ► revision known to stand on the server
    this.isSending = false;
    this.failures = 0;
    this.timer = null;
    this.state = "clean";
    this.storage = storage;
    this.hasStorage = this.#tryStorage();
    if (this.hasStorage) this.#adopt();
  }

  get size() {
    let n = 0;
    for (const line of this.lines.values()) n += Boolean(line.sent) + Boolean(line.next);
    return n;
  }

  get hasUnsentNote() {
    return this.notes.size > 0;
  }

  // What the rater last chose here, if it is not acknowledged yet.
  pending(placement) {
    const line = this.lines.get(placement);
    return line ? (line.next ?? line.sent) : null;
  }

  // Put a save in line; an unsent one for the same placement is replaced, its time kept.
  put(placement, { baseRev, note, ...values }) {
    const line = this.lines.get(placement) ?? { sent: null, next: null };
    const older = line.next;
    const operation = { ...values, op_id: crypto.randomUUID?.() ?? uuid4(), base_rev: baseRev };
    if (older) {
      for (const kind of ["active_ms", "hidden_ms", "idle_ms"]) operation[kind] += older[kind];
      this.#forget(placement, older);
    }
    line.next = operation;
    this.lines.set(placement, line);
    if (note !== undefined) this.notes.set(placement, note);
    this.#keep(placement, operation, false);
    this.flush();
  }

  drop(placement) {
    const line = this.lines.get(placement);
    if (!line) return;
    for (const operation of [line.sent, line.next]) if (operation) this.#forget(placement, operation);
    this.lines.delete(placement);
    this.notes.delete(placement);
    this.#report();
  }

  // Somebody asks, or the connection is back: the waiting begins anew.
  retry() {
    this.failures = 0;
    return this.flush();
  }

  // Send everything, one at a time, oldest first.
  async flush() {
    if (this.isSending) return;
    clearTimeout(this.timer);
    this.isSending = true;
    try {
      while (this.lines.size > 0) {
        const [placement, line] = this.lines.entries().next().value;
        if (!(await this.#sendOne(placement, line))) break;
      }
    } finally {
      this.isSending = false;
      this.#report();
    }
  }

  async #sendOne(placement, line) {
    if (!line.sent) {
      line.sent = line.next;
      line.next = null;
      line.sent.base_rev = this.revs.get(placement) ?? line.sent.base_rev;
      this.#keep(placement, line.sent, true);
    }
    const operation = line.sent;
    const note = this.notes.get(placement);
    this.#setState("saving");
    let answer;
    let isOurs = true;
    try {
      answer = await this.send(placement, operation, note);
      // "Not there" may only mean that somebody else has signed in in this browser.
      if (answer.status === 404) isOurs = await this.isOurs();
    } catch {
      return this.#later("waiting");
    }
    const { status, body } = answer;
    if (status === 401 || status === 403 || !isOurs) return this.#later("signed-out");
    if (status >= 500 || status === 429) return this.#later("server");
    this.failures = 0;
    this.#forget(placement, operation);
    line.sent = null;
    if (status === 200) {
      this.revs.set(placement, body.rev);
      if (note !== undefined && this.notes.get(placement) === note) this.notes.delete(placement);
      if (!line.next) this.lines.delete(placement);
      this.onSaved(placement, body, operation);
    } else {
      // Refused for good (404, 409, 422, 423): the page says why; nothing of it is tried again by itself.
      const newest = line.next ?? operation;
      if (line.next) this.#forget(placement, line.next);
      this.lines.delete(placement);
      this.onRefused(placement, status, body, newest);
    }
    return true;
  }

  #later(state) {
    this.failures += 1;
    const pause = Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** (this.failures - 1));
    this.timer = setTimeout(() => this.flush(), pause * (0.5 + Math.random() / 2));
    this.#setState(state);
    return false;
  }

  #report() {
    if (this.size === 0) this.#setState(this.state === "clean" ? "clean" : "saved");
    else this.onState(this.state, this.size);
  }

  #setState(state) {
    this.state = state;
    this.onState(state, this.size);
  }

  #tryStorage() {
    try {
      this.storage.setItem(`${this.prefix}probe`, "1");
      this.storage.removeItem(`${this.prefix}probe`);
      return true;
    } catch {
      return false;
    }
  }

  // Entries left by an earlier page of this seat; another open tab may send them too, which does no harm.
  #adopt() {
    const found = [];
    for (let i = 0; i < this.storage.length; i += 1) {
      const key = this.storage.key(i);
      if (!key.startsWith(this.prefix)) continue;
      try {
        found.push(JSON.parse(this.storage.getItem(key)));
      } catch {
        this.storage.removeItem(key);
      }
    }
    found.sort((a, b) => a.at - b.at);
    for (const { placement, operation, isSent } of found) {
      const line = this.lines.get(placement) ?? { sent: null, next: null };
      if (isSent && !line.sent) line.sent = operation;
      else line.next = operation;
      this.lines.set(placement, line);
    }
    if (found.length > 0) this.state = "waiting";
  }

  #keep(placement, operation, isSent) {
    if (!this.hasStorage) return;
    try {
      const entry = JSON.stringify({ placement, operation, isSent, at: Date.now() });
      this.storage.setItem(this.prefix + operation.op_id, entry);
    } catch {
      this.hasStorage = false;
      this.onState("no-storage", this.size);
    }
  }

  #forget(placement, operation) {
    if (this.hasStorage) this.storage.removeItem(this.prefix + operation.op_id);
  }
}

// crypto.randomUUID exists on https and loopback only.
function uuid4() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

// PUT and GET with a time limit. Resolves with {status, body}; rejects when no answer came.
export async function call(url, { method = "GET", data = null, csrf = "" } = {}) {
  const headers = { Accept: "application/json" };
  if (data) Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": csrf });
  const response = await fetch(url, {
    method,
    headers,
    body: data ? JSON.stringify(data) : null,
    credentials: "same-origin",
    redirect: "error",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
  return { status: response.status, body: isJson ? await response.json() : {} };
}
