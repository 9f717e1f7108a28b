// The rating page: shows one blinded response after the other, takes scores by key or click, and never loses one.
// Text enters the page as text only (textContent); the page runs under trusted types.

import { Clock } from "./rate/clock.js";
import { Outbox, call } from "./rate/outbox.js";

const $ = (id) => document.getElementById(id);
const setup = JSON.parse($("setup").textContent);
const words = $("words").dataset;
const form = $("scores");
const criteria = [...form.querySelectorAll(".criterion")];
const NOTE_PAUSE_MS = 800;
const RECENT = 20;

let card = setup.card; // what is on the page
let ahead = []; // cards held for later, nearest first; never final ones
const behind = []; // cards rated on this page, latest last: going back needs no connection
const submitted = new Set(); // placements whose final scores the server has not acknowledged yet
let isWaiting = false; // nothing to show until the server answers
let isLocked = false; // paused, closed or withdrawn
let isOver = false; // the server has no further card
let current = 0; // index of the criterion the keys act on
let noteTimer = null;
let breakOffered = false;
let paces = []; // active seconds of the latest responses
let spentHere = 0;
const progress = { ...setup.progress };

const say = (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const address = (name, id) => setup.urls[name].replace(setup.nobody, id);
const csrf = () => document.cookie.match(/(?:^|; )(?:__Host-)?csrftoken=([^;]+)/)?.[1] ?? form.csrfmiddlewaretoken.value;
const clock = new Clock({ idleAfter: setup.idle_after_seconds * 1000 });

const outbox = new Outbox({
  seat: setup.seat,
  storage: storage(),
  send: (placement, operation, note) =>
    call(address("rating", placement), {
      method: "PUT",
      csrf: csrf(),
      data: {
        ...operation,
        ...(note === undefined ? {} : { note }),
        ...(operation.is_final ? { holding: held() } : {}),
      },
    }),
  isOurs: async () => (await call(`${setup.urls.next}?${holding()}`)).status === 200,
  onState: showState,
  onSaved: whenSaved,
  onRefused: whenRefused,
});

// What the server need not send again: on the page, in hand, or submitted and not acknowledged yet.
function held() {
  return [...new Set([card?.public_id, ...ahead.map((next) => next.public_id), ...submitted])].filter(Boolean).slice(-50);
}

function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

// --- Showing ---------------------------------------------------------------------------------------------------------

function show(next, { focus = true } = {}) {
  card = next;
  isWaiting = false;
  $("waiting").hidden = true;
  spentHere = 0;
  hideGuide();
  const isNotice = !card.text && card.notice.length > 0;
  $("notice").hidden = !isNotice;
  $("desk").hidden = isNotice;
  history.replaceState(null, "", address("page", card.public_id));
  if (isNotice) {
    $("notice-topics").textContent = card.notice.map((risk) => words[risk] ?? risk).join(", ");
    if (focus) $("notice-heading").focus();
    return;
  }
  overlayUnsent();
  showDialogue(card.turns);
  $("slot").textContent = card.slot;
  $("slot-of").textContent = card.n_slots > 1 ? say("slotOf", { n: card.n_slots }) : "";
  $("response").textContent = card.text;
  form.action = address("page", card.public_id);
  for (const fieldset of criteria) {
    for (const radio of fieldset.querySelectorAll("input")) {
      radio.checked = String(card.scores[fieldset.dataset.dimension]) === radio.value;
    }
  }
  $("note").value = card.note;
  $("note-fold").open = card.note !== "";
  $("flag").checked = card.is_flagged;
  $("revisit").hidden = !card.is_final;
  clearErrors();
  setCurrent(0);
  window.scrollTo(0, 0);
  if (focus) $("response-heading").focus({ preventScroll: true });
  prefetch();
}

// Scores that this browser holds and the server has not acknowledged win over what the server sent.
function overlayUnsent() {
  const unsent = outbox.pending(card.public_id);
  if (unsent) Object.assign(card, { scores: { ...unsent.scores }, is_flagged: unsent.is_flagged ?? card.is_flagged });
  if (!outbox.revs.has(card.public_id) || outbox.revs.get(card.public_id) < card.rev) {
    outbox.revs.set(card.public_id, card.rev);
  }
}

function showDialogue(turns) {
  const list = document.createElement("ol");
  list.className = "turns";
  for (const { role, text } of turns) {
    const turn = document.createElement("li");
    const speaker = document.createElement("span");
    const said = document.createElement("p");
    turn.className = role === "client" ? "turn client" : "turn counsellor";
    speaker.className = "speaker";
    speaker.textContent = role === "client" ? words.client : words.counsellor;
    said.className = "text";
    said.dir = "auto";
    said.lang = "und";
    said.textContent = text;
    turn.append(speaker, said);
    list.append(turn);
  }
  $("dialogue").replaceChildren(list);
  $("dialogue").scrollTop = $("dialogue").scrollHeight;
}

function showProgress() {
  $("count-label").textContent = say("doneOf", { done: progress.n_done, total: progress.n_total });
  $("progress").value = progress.n_done;
  const left = progress.n_total - progress.n_done;
  const pace = paces.length >= 5 ? median(paces) : setup.seconds_per_response;
  const minutes = Math.max(1, Math.round((left * pace) / 60));
  const time = minutes >= 90 ? say("hours", { n: Math.round(minutes / 6) / 10 }) : say("minutes", { n: minutes });
  $("eta").textContent = left > 0 ? say("eta", { time }) : "";
}

function showState(state, n) {
  const texts = {
    clean: () => words.clean,
    saving: () => words.saving,
    saved: () => say("saved", { time: new Date().toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" }) }),
    waiting: () => say("waiting", { n }),
    server: () => say("server", { n }),
    "signed-out": () => say("signedOut", { n }),
    "no-storage": () => words.noStorage,
  };
  const isStuck = ["waiting", "server", "signed-out"].includes(state) && n > 0;
  $("save-state").dataset.state = isStuck || state === "no-storage" ? "waiting" : state;
  $("save-text").textContent = texts[state]();
  $("retry").hidden = !isStuck;
  if (state === "signed-out" && n > 0 && !$("signed-out").open) $("signed-out").showModal();
  if (state === "saved" && $("signed-out").open) $("signed-out").close();
  if (isWaiting && isStuck) $("waiting-text").textContent = words.offlineNext;
}

function banner(text) {
  $("banner").textContent = text;
  $("banner").hidden = text === "";
}

function clearErrors() {
  $("form-error").textContent = "";
  for (const fieldset of criteria) fieldset.querySelector(".missing").hidden = true;
}

// --- Moving on -------------------------------------------------------------------------------------------------------

const holding = () => new URLSearchParams(held().map((id) => ["holding", id]));

async function prefetch() {
  if (ahead.length > 0 || isOver || isLocked) return;
  try {
    const { status, body } = await call(`${setup.urls.next}?${holding()}`);
    if (status === 200) hold(body.card, body.progress);
  } catch {
    // Without a connection there is nothing to hold; the answer to the next save brings one.
  }
}

function hold(next, counts) {
  if (counts && outbox.size === 0) Object.assign(progress, counts);
  if (!next) {
    if (ahead.length === 0) isOver = true;
  } else if (ahead.length === 0 && !held().includes(next.public_id)) {
    ahead.push(next); // one and no more: an item may be withdrawn, and its text is not to lie about
  }
  showProgress();
  if (isWaiting) goOn();
}

function goOn() {
  const next = ahead.shift();
  if (next) {
    show(next);
  } else if (isOver && outbox.size === 0) {
    location.assign(setup.urls.done);
  } else {
    isWaiting = true;
    $("desk").hidden = true;
    $("notice").hidden = true;
    $("waiting").hidden = false;
    $("waiting-text").textContent = outbox.state === "waiting" ? words.offlineNext : "";
    $("waiting-heading").focus();
    fetchNext();
  }
}

async function fetchNext() {
  if (outbox.size > 0) {
    outbox.flush();
    return; // the answer to the last save brings the next card
  }
  try {
    const { status, body } = await call(`${setup.urls.next}?${holding()}`);
    if (status === 200) hold(body.card, body.progress);
    else if (status === 401 || status === 403) $("signed-out").showModal();
    else throw new Error(String(status));
  } catch {
    $("waiting-text").textContent = words.offlineNext;
    setTimeout(() => isWaiting && fetchNext(), 3000);
  }
}

async function goBack() {
  if (behind.length > 0) {
    stepBack(behind.pop());
    return;
  }
  const answer = await call(address("previous", card.public_id)).catch(() => null);
  if (!answer || answer.status !== 200) return;
  if (answer.body.card) stepBack(answer.body.card);
  else $("form-error").textContent = words.first;
}

function stepBack(previous) {
  if (!card.is_final && card.text) ahead.unshift({ ...card, scores: chosen(), note: $("note").value, is_flagged: $("flag").checked });
  show(previous);
}

// --- Saving ----------------------------------------------------------------------------------------------------------

function chosen() {
  const scores = {};
  for (const fieldset of criteria) {
    const radio = fieldset.querySelector("input:checked");
    if (radio) scores[fieldset.dataset.dimension] = Number(radio.value);
  }
  return scores;
}

function save({ isFinal = card.is_final, note } = {}) {
  if (isLocked) return;
  card.scores = chosen();
  card.is_flagged = $("flag").checked;
  const times = clock.take();
  spentHere += times.active_ms / 1000;
  outbox.put(card.public_id, {
    baseRev: outbox.revs.get(card.public_id) ?? card.rev,
    scores: card.scores,
    is_final: isFinal,
    is_flagged: card.is_flagged,
    note,
    ...times,
  });
}

function submit() {
  clearErrors();
  const missing = criteria.filter((fieldset) => !fieldset.querySelector("input:checked"));
  if (missing.length > 0) {
    for (const fieldset of missing) fieldset.querySelector(".missing").hidden = false;
    const names = missing.map((fieldset) => fieldset.querySelector("legend span").textContent).join(", ");
    $("form-error").textContent = say("missing", { names });
    setCurrent(criteria.indexOf(missing[0]), { focus: true });
    return;
  }
  clearTimeout(noteTimer);
  const wasFinal = card.is_final;
  const note = $("note").value === card.note ? undefined : $("note").value;
  card.note = $("note").value;
  submitted.add(card.public_id);
  save({ isFinal: true, note });
  card.is_final = true;
  behind.push(card);
  if (!wasFinal) {
    progress.n_done += 1;
    paces = [...paces, spentHere].slice(-RECENT);
    showProgress();
  }
  goOn();
}

function whenSaved(placement, body, operation) {
  if (operation.is_final) submitted.delete(placement);
  if (body.next !== undefined && operation.is_final) hold(body.next, null);
  if (placement === card?.public_id) card.rev = body.rev;
  if (isWaiting && outbox.size === 0) {
    if (isOver) goOn();
    else fetchNext();
  }
}

function whenRefused(placement, status, body, operation) {
  submitted.delete(placement);
  if (status === 409 && body.code === "stale_revision") {
    resolveConflict(placement, body.current, operation);
  } else if (status === 423) {
    lock(body.message);
  } else if (status === 404) {
    banner(words.gone);
    if (placement === card?.public_id) goOn();
  } else {
    $("form-error").textContent = body.message ?? String(status);
  }
}

function lock(message) {
  isLocked = true;
  banner(message);
  for (const control of form.querySelectorAll("input, textarea, button")) control.disabled = true;
}

function resolveConflict(placement, theirs, mine) {
  outbox.revs.set(placement, theirs.rev);
  const isSame = Object.keys({ ...theirs.scores, ...mine.scores }).every((key) => theirs.scores[key] === mine.scores[key]);
  if (isSame && (theirs.is_final || !mine.is_final)) return; // both windows say the same
  const rows = criteria.map((fieldset) => {
    const key = fieldset.dataset.dimension;
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = fieldset.querySelector("legend span").textContent;
    row.append(name, ...[mine.scores[key], theirs.scores[key]].map((value) => {
      const cell = document.createElement("td");
      cell.className = "num";
      cell.textContent = value ?? "–";
      return cell;
    }));
    return row;
  });
  $("conflict-rows").replaceChildren(...rows);
  const decide = (keepMine) => {
    $("conflict").close();
    if (keepMine) {
      const { op_id: _spent, base_rev: _old, ...values } = mine;
      const scores = { ...theirs.scores, ...mine.scores };
      outbox.put(placement, { ...values, scores, is_final: mine.is_final || theirs.is_final, baseRev: theirs.rev });
      if (placement === card?.public_id) show({ ...card, ...theirs, scores }, { focus: false });
    } else if (placement === card?.public_id) {
      show({ ...card, ...theirs }, { focus: false });
    }
  };
  $("keep-mine").onclick = () => decide(true);
  $("keep-theirs").onclick = () => decide(false);
  if (!$("conflict").open) $("conflict").showModal();
}

// --- Notices, skipping, breaks ---------------------------------------------------------------------------------------

async function answerNotice(answer) {
  const given = await call(address("notice", card.public_id), { method: "POST", csrf: csrf(), data: { answer } }).catch(() => null);
  if (!given || given.status !== 200) {
    if (given?.status === 423) lock(given.body.message);
    else if (given?.status === 401 || given?.status === 403) $("signed-out").showModal();
    else banner(words.offlineNext);
    return;
  }
  banner("");
  if (answer === "open") {
    const opened = await call(address("card", card.public_id)).catch(() => null);
    if (opened?.status === 200) show(opened.body.card);
    return;
  }
  outbox.drop(card.public_id);
  ahead = []; // they may belong to the item that was put aside
  isOver = false;
  card = null;
  goOn();
}

function takeBreak() {
  document.querySelector("main").hidden = true;
  save();
  location.assign(setup.urls.break);
}

function offerBreak() {
  if (breakOffered || clock.sinceBreak < setup.break_after_minutes * 60000) return;
  breakOffered = true;
  banner(words.breakDue);
}

// --- Keys ------------------------------------------------------------------------------------------------------------

function setCurrent(index, { focus = false } = {}) {
  current = Math.max(0, Math.min(index, criteria.length - 1));
  if (!focus) return;
  const fieldset = criteria[current];
  (fieldset.querySelector("input:checked") ?? fieldset.querySelector("input")).focus();
}

function score(digit) {
  const radio = criteria[current].querySelector(`input[value="${digit}"]`);
  if (!radio || isLocked) return;
  radio.checked = true;
  criteria[current].querySelector(".missing").hidden = true;
  save();
  if (current < criteria.length - 1) setCurrent(current + 1, { focus: true });
  else radio.focus();
}

function hideGuide() {
  $("guide").hidden = true;
}

function toggleGuide() {
  $("guide").hidden = !$("guide").hidden;
  if ($("guide").hidden) criteria[current].querySelector("input").focus();
  else $("guide-heading").focus();
}

const ACTIONS = {
  ArrowUp: () => setCurrent(current - 1, { focus: true }),
  ArrowDown: () => setCurrent(current + 1, { focus: true }),
  Backspace: () => setCurrent(current - 1, { focus: true }),
  p: goBack,
  c: () => {
    $("note-fold").open = true;
    $("note").focus();
  },
  f: () => $("flag").click(),
  g: toggleGuide,
  b: takeBreak,
  "?": () => $("keys").showModal(),
};

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
    event.preventDefault();
    if (card?.text) save({ note: changedNote() });
    return;
  }
  if (event.altKey && event.key === "ArrowLeft") {
    event.preventDefault();
    goBack();
    return;
  }
  const target = event.target;
  if (event.key === "Escape") {
    if (!$("guide").hidden) toggleGuide();
    else if (target.matches("textarea")) target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("textarea, input[type=text], select") || document.querySelector("dialog[open]")) return;
  if (!card?.text || isWaiting) return;
  const isControl = target.matches("a, button, summary, input[type=checkbox]");
  if (event.key === "Enter") {
    if (isControl) return;
    event.preventDefault();
    if (!event.repeat) submit();
    return;
  }
  if (["ArrowUp", "ArrowDown"].includes(event.key) && !target.matches("input[type=radio], body, h2")) return;
  if (!setup.has_shortcuts && event.key.length === 1) return;
  if (/^[0-9]$/.test(event.key)) {
    event.preventDefault();
    if (!event.repeat) score(event.key);
    return;
  }
  const action = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || (event.repeat && event.key.length === 1)) return;
  event.preventDefault();
  action();
}

function changedNote() {
  if ($("note").value === card.note) return undefined;
  card.note = $("note").value;
  return card.note;
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// --- Wiring ----------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", onKey);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.addEventListener("change", (event) => {
  if (event.target.matches("input[type=radio]")) {
    setCurrent(criteria.indexOf(event.target.closest(".criterion")));
    event.target.closest(".criterion").querySelector(".missing").hidden = true;
    save();
  } else if (event.target === $("flag")) {
    save();
  }
});
form.addEventListener("focusin", (event) => {
  const fieldset = event.target.closest(".criterion");
  if (fieldset) setCurrent(criteria.indexOf(fieldset));
});
$("note").addEventListener("input", () => {
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => save({ note: changedNote() }), NOTE_PAUSE_MS);
});
$("notice-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answerNotice(event.submitter?.value ?? "later");
});
$("previous").addEventListener("click", (event) => {
  event.preventDefault();
  goBack();
});
$("skip").addEventListener("click", () => window.confirm(words.skipSure) && answerNotice("skip"));
$("guide-link").addEventListener("click", (event) => {
  event.preventDefault();
  toggleGuide();
});
$("guide-close").addEventListener("click", toggleGuide);
$("keys-button").addEventListener("click", () => $("keys").showModal());
$("break-link").addEventListener("click", (event) => {
  event.preventDefault();
  takeBreak();
});
$("retry").addEventListener("click", () => outbox.retry());
$("signed-out").addEventListener("close", () => (isWaiting ? fetchNext() : outbox.flush()));
for (const signOut of document.querySelectorAll("[data-sign-out]")) {
  signOut.addEventListener("submit", (event) => {
    if ((outbox.size > 0 || outbox.hasUnsentNote) && !window.confirm(words.unsentLeave)) event.preventDefault();
  });
}
window.addEventListener("online", () => outbox.retry());
document.addEventListener("visibilitychange", () => outbox.flush());
window.addEventListener("pagehide", () => outbox.flush());
window.addEventListener("beforeunload", (event) => {
  if (outbox.hasUnsentNote || (!outbox.hasStorage && outbox.size > 0)) event.preventDefault();
});
setInterval(offerBreak, 5000);

$("skip").hidden = false;
$("keys-button").hidden = false;
clock.start();
showProgress();
showState(outbox.hasStorage ? "clean" : "no-storage", 0);
show(card, { focus: false });
outbox.flush();
