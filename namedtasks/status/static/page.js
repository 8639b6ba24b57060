// The status page. It loads the most urgent names first, then the others in pieces, and
// meanwhile gets server-sent events with what has changed. Times of names are seconds on the clock
// of their map. Each message has the times that those clocks show, so that countdowns do not
// depend on the clock of this browser.
//
// Text from the server goes into the page as textContent, never as markup.

const PAGE = 100; // names in the document at once
const KEPT = 200; // routine events that are kept, and as many notable ones
const EVENTS = 50; // events in the document at once
const PATIENCE = 15_000; // milliseconds until a request without an answer has failed
const DEAD = 25_000; // milliseconds without a message: the server sends one at least every 10 s
const GRACE = 3_000; // milliseconds in which a stream may open again before it counts as lost
const QUIET = 10_000; // milliseconds between two announcements to a screen reader

const STATES = {
  running: "running",
  waiting_for_slot: "waits for a slot",
  pending: "pending",
  waiting: "waiting",
  ready: "ready",
  gave_up: "gave up",
  ended: "ended",
};

const FILTERS = {
  all: ["All", () => true],
  failing: ["Failing", (row) => row.failures > 0],
  gave_up: ["Gave up", (row) => row.state === "gave_up"],
  overdue: ["Overdue", (row) => row.overdue === true],
  waiting: ["Waiting", (row) => row.state === "waiting" || row.state === "ready"],
  running: ["Running", (row) => row.state === "running"],
  waiting_for_slot: ["Need a slot", (row) => row.state === "waiting_for_slot"],
  pending: ["Pending", (row) => row.state === "pending"],
  ended: ["Ended", (row) => row.state === "ended"],
};

const RANK = { pending: 3, waiting_for_slot: 4, running: 5, ended: 6 }; // of names that do not fail

const ORDERS = {
  urgency: (a, b) => rank(a) - rank(b) || (b.failures ?? 0) - (a.failures ?? 0) || byName(a, b),
  name: byName,
  since: (a, b) => age(b) - age(a) || byName(a, b),
  failures: (a, b) => (b.failures ?? 0) - (a.failures ?? 0) || byName(a, b),
  retry_at: (a, b) => wait(a) - wait(b) || byName(a, b),
};

const $ = (id) => document.getElementById(id);

const rows = new Map(); // by id
const gone = new Map(); // while rows are loaded: by id, the version in which the row was removed
const maps = new Map(); // by label
let events = [];
let counts = {};
let title = "namedtasks";
let clocks = { at: 0, now: {}, received: 0 };

let generation = 0; // an answer to a request of an older generation is dropped
let source = null;
let pause = 1_000; // milliseconds before the next try
let resynced = false; // and no message has come since then
let signedIn = false; // and no answer has come since then
let timers = { dead: 0, lost: 0, again: 0 };
let loading = false;

const view = { filter: "all", text: "", map: "", sort: "urgency", page: 0 };
let listed = []; // the rows of the view, in order
let tally = null; // the number of rows for each filter, if the view has only one of several maps
let stale = true; // the list has to be made again
let painting = false; // a paint is scheduled
let viewed = false; // there was a first paint

// Times

function now(label) {
  return (clocks.now[label] ?? 0) + (performance.now() - clocks.received) / 1000;
}

function age(row) {
  return row.since === undefined ? -1 : now(row.map) - row.since;
}

function wait(row) {
  return row.retry_at === undefined ? Infinity : row.retry_at - now(row.map);
}

// The space before a unit does not break.
function span(seconds) {
  const exact = Math.max(0, seconds);
  if (exact < 10 && exact % 1 > 0.05) return `${Math.floor(exact * 10) / 10}\u00a0s`;
  const all = Math.floor(exact);
  if (all < 60) return `${all}\u00a0s`;
  if (all < 3600) return `${Math.floor(all / 60)}\u00a0min ${all % 60}\u00a0s`;
  if (all < 86400) return `${Math.floor(all / 3600)}\u00a0h ${Math.floor((all % 3600) / 60)}\u00a0min`;
  return `${Math.floor(all / 86400)}\u00a0d ${Math.floor((all % 86400) / 3600)}\u00a0h`;
}

function elapsed(seconds) {
  return span(Math.floor(Math.max(0, seconds)));
}

function countdown(seconds) {
  return span(Math.ceil(Math.max(0, seconds)));
}

function clockTime(secondsAgo) {
  const date = new Date(Date.now() - secondsAgo * 1000);
  if (Number.isNaN(date.getTime())) return "";
  const today = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  return today ? time : `${date.toLocaleDateString()} ${time}`;
}

const grouped = new Intl.NumberFormat();

function number(count) {
  return grouped.format(count);
}

// Order

function rank(row) {
  if (row.state === "gave_up") return 0;
  if (row.overdue) return 1;
  return row.failures > 0 ? 2 : (RANK[row.state] ?? 2);
}

function byName(a, b) {
  const one = nameKey(a);
  const other = nameKey(b);
  return one < other ? -1 : one > other ? 1 : a.id - b.id;
}

// Puts vol-9 before vol-10. An Intl.Collator does the same, and takes ten times as long.
function nameKey(row) {
  row.key ??= `${row.name}\n${row.operation ?? ""}`.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(15, "0"));
  return row.key;
}

// The map that the view is limited to. The address may have a map that is not there any more.
function chosenMap() {
  return maps.size > 1 && maps.has(view.map) ? view.map : "";
}

function refreshList() {
  const matches = FILTERS[view.filter][1];
  const text = view.text.toLowerCase();
  const map = chosenMap();
  listed = [];
  tally = map ? Object.fromEntries(Object.keys(FILTERS).map((filter) => [filter, 0])) : null;
  for (const row of rows.values()) {
    if (map && row.map !== map) continue;
    if (map) for (const filter in FILTERS) if (FILTERS[filter][1](row)) tally[filter] += 1;
    if (!matches(row)) continue;
    if (text && !searched(row).includes(text)) continue;
    listed.push(row);
  }
  listed.sort(ORDERS[view.sort]);
  const last = Math.max(0, Math.ceil(listed.length / PAGE) - 1);
  view.page = Math.max(0, Math.min(view.page, last));
  stale = false;
}

function searched(row) {
  row.searched ??= `${row.name}\n${row.operation ?? ""}\n${row.error ?? ""}\n${row.last?.error ?? ""}`.toLowerCase();
  return row.searched;
}

// Making elements

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

function badge(kind, text, picture = kind) {
  const made = element("span", `badge ${kind}`);
  if (picture) made.append(icon(picture));
  made.append(element("span", "", text));
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Moves as little as possible: what stays in its place keeps its selection.
function place(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

// Rows: one element for each name in the document, replaced when its row has changed

const shown = new Map(); // by id: the element, its row, and the functions that update its ages

function rowElement(row) {
  let known = shown.get(row.id);
  if (known?.row === row) return known.element;
  const tr = element("tr");
  tr.setAttribute("role", "row");
  tr.dataset.state = row.state;
  if (known) {
    tr.className = "changed";
    tr.addEventListener("animationend", () => tr.removeAttribute("class"));
  }
  known = { element: tr, row, live: [] };
  shown.set(row.id, known);
  const cell = (tag = "td") => {
    const made = element(tag);
    made.setAttribute("role", tag === "th" ? "rowheader" : "cell");
    tr.append(made);
    return made;
  };
  const live = (node, text) => {
    known.live.push(() => setText(node, text()));
    node.textContent = text();
  };
  stateCell(cell(), row);
  nameCell(cell("th"), row);
  sinceCell(cell(), row, live);
  failuresCell(cell(), row, live);
  nextCell(cell(), row, live);
  lastCell(cell(), row, live);
  return tr;
}

function stateCell(td, row) {
  if (row.state === "ended") {
    const status = row.last?.status ?? "ended";
    td.append(badge(status, status));
    return;
  }
  td.append(badge(row.state, STATES[row.state]));
  if (row.overdue) td.append(" ", badge("overdue", "overdue"));
  else if (row.stopping_at !== undefined) td.append(" ", badge("cancelled", "asked to stop"));
}

function nameCell(th, row) {
  th.scope = "row";
  th.append(row.name);
  const more = [row.operation, maps.size > 1 ? `map ${row.map}` : undefined].filter(Boolean).join(" · ");
  if (more) th.append(element("small", "", more));
}

function sinceCell(td, row, live) {
  td.className = "since";
  if (row.since !== undefined) {
    const main = element("span");
    live(main, () => elapsed(age(row)));
    main.title = `since ${clockTime(age(row))}`;
    td.append(main);
  }
  if (row.deadline === undefined || row.stopping_at !== undefined) return;
  const left = element("small");
  live(left, () => (row.deadline > now(row.map) ? `timeout in ${countdown(row.deadline - now(row.map))}` : "timeout passed"));
  td.append(left);
}

function failuresCell(td, row, live) {
  if (!row.failures) return;
  td.className = "failures";
  td.append(element("span", "", number(row.failures)));
  if (row.failing_since === undefined) return;
  const since = element("small");
  live(since, () => `for ${elapsed(now(row.map) - row.failing_since)}`);
  since.title = `since ${clockTime(now(row.map) - row.failing_since)}`;
  td.append(since);
}

function nextCell(td, row, live) {
  const main = element("span");
  const details = [];
  const automatic = row.pending === "retry" || (row.pending === "queue" && row.holder === undefined);
  if (row.state === "gave_up") {
    main.textContent = "none";
    details.push("until forget()");
  } else if (row.state === "waiting") {
    live(main, () => (wait(row) > 0 ? `in ${countdown(wait(row))}` : "now"));
    details.push(automatic ? "automatically" : "at its next start");
  } else if (row.state === "ready") {
    main.textContent = "now";
    details.push("at its next start");
  } else if (row.state === "pending" || row.pending !== undefined) {
    main.textContent = row.pending === "replace" ? "replaces" : "queued";
    if (row.holder !== undefined) details.push(`after ${row.holder}`);
  } else {
    return;
  }
  td.className = "next";
  td.append(main, ...details.map((text) => element("small", "", text)));
}

function lastCell(td, row, live) {
  const { last } = row;
  const error = row.error ?? last?.error; // last has an error only if it is another one
  if (error !== undefined) td.append(element("span", "error", error));
  if (last === undefined) return;
  const line = element("small");
  live(line, () => `${last.status} ${elapsed(now(row.map) - last.ended_at)} ago, after ${span(last.duration)}`);
  td.append(line);
}

function paintRows() {
  const page = listed.slice(view.page * PAGE, (view.page + 1) * PAGE);
  place($("rows"), page.map(rowElement));
  const ids = new Set(page.map((row) => row.id));
  for (const id of shown.keys()) if (!ids.has(id)) shown.delete(id);
  $("names").hidden = page.length === 0;
  $("nothing").hidden = page.length > 0;
  setText($("nothing"), nothingText());
  const from = view.page * PAGE + 1;
  const to = from + page.length - 1;
  $("pager").hidden = listed.length <= PAGE;
  setText($("range"), `${number(from)} to ${number(to)} of ${number(listed.length)}`);
  // Not disabled: a button that is loses the focus.
  $("previous").setAttribute("aria-disabled", String(view.page === 0));
  $("next").setAttribute("aria-disabled", String(to >= listed.length));
  const total = serverCount("all");
  setText($("found"), loading ? `loading, ${number(rows.size)} of ${number(total)}` : foundText());
  const omitted = [...maps.values()].reduce((sum, map) => sum + map.omitted, 0);
  $("omitted").hidden = omitted === 0;
  setText($("omitted"), `Up to ${number(omitted)} more names are not shown, because there are too many.`);
}

function nothingText() {
  if (!rows.size) return "Nothing runs, waits or is pending.";
  return loading ? "No name that is loaded matches the filter." : "No name matches the filter.";
}

function foundText() {
  return listed.length === rows.size ? "" : `${number(listed.length)} of ${number(rows.size)}`;
}

// Counts, the summary and the maps

function serverCount(filter) {
  if (filter === "all") return Object.keys(STATES).reduce((sum, state) => sum + (counts[state] ?? 0), 0);
  if (filter === "waiting") return (counts.waiting ?? 0) + (counts.ready ?? 0);
  return counts[filter] ?? 0;
}

function makeTiles() {
  for (const [filter, [label]] of Object.entries(FILTERS)) {
    const tile = element("button", `tile ${filter}`);
    tile.type = "button";
    tile.id = `tile-${filter}`;
    tile.append(element("b", "", "0"), icon(filter === "ended" ? "succeeded" : filter), element("span", "", label));
    tile.addEventListener("click", () => show({ filter: view.filter === filter ? "all" : filter, page: 0 }));
    $("tiles").append(tile);
  }
}

function paintTiles() {
  for (const filter of Object.keys(FILTERS)) {
    const tile = $(`tile-${filter}`);
    const count = tally?.[filter] ?? serverCount(filter);
    setText(tile.querySelector("b"), number(count));
    tile.toggleAttribute("data-zero", count === 0);
    tile.setAttribute("aria-pressed", String(view.filter === filter));
  }
}

function summary() {
  const failing = serverCount("failing");
  const parts = [];
  if (failing) parts.push(`${number(failing)} ${failing === 1 ? "name fails" : "names fail"}`);
  if (counts.gave_up) parts.push(`${number(counts.gave_up)} of them gave up`);
  if (counts.overdue) parts.push(`${number(counts.overdue)} ${counts.overdue === 1 ? "run is" : "runs are"} overdue`);
  for (const map of maps.values()) if (map.status !== "open") parts.push(`map ${map.map} is ${map.status}`);
  return parts.length ? parts.join(", ") : "nothing fails";
}

function paintSummary() {
  const failing = serverCount("failing");
  const text = summary();
  $("summary").hidden = false;
  $("summary").dataset.state = text === "nothing fails" ? "well" : "ill";
  setText($("summary-text"), `${text[0].toUpperCase()}${text.slice(1)}.`);
  setText($("summary-runs"), `${number(serverCount("running"))} of ${number(serverCount("all"))} names run.`);
  document.title = failing ? `(${failing}) ${title}` : title;
  setText($("title"), title);
}

// Lines of a map, which are hidden if they have no text

const LINES = [
  ["running", (map) => (map.limit === null ? number(map.running) : `${map.running - map.waiting_for_slot} of ${map.limit} slots`)],
  ["oldest run", (map) => map.oldest_run_since !== null && elapsed(now(map.map) - map.oldest_run_since)],
  ["wait for a slot", (map) => map.waiting_for_slot > 0 && number(map.waiting_for_slot)],
  ["longest wait for a slot", (map) => map.longest_slot_wait_since !== null && elapsed(now(map.map) - map.longest_slot_wait_since)],
  ["most failures in a row", (map) => number(map.max_failures)],
  ["fail repeatedly", (map) => number(map.failing)],
];

const cards = new Map(); // by label: the element of a map, and the function that updates its texts

function makeCard(label) {
  const card = element("div", "map");
  const head = element("h3", "", label);
  const status = badge("", "", "");
  head.append(status);
  const list = element("dl");
  const lines = LINES.map(([name, text]) => [element("dt", "", name), element("dd"), text]);
  for (const [dt, dd] of lines) list.append(dt, dd);
  card.append(head, list);
  const update = () => {
    const map = maps.get(label);
    const isOpen = map.status === "open";
    status.className = `badge ${isOpen ? "open" : "failed"}`;
    setText(status.firstChild, isOpen ? "accepts starts" : map.status);
    const hasEnded = !isOpen && map.status !== "closing";
    for (const [dt, dd, text] of lines) {
      const value = !hasEnded && text(map);
      dt.hidden = dd.hidden = !value;
      if (value) setText(dd, value);
    }
  };
  return { element: card, update };
}

function paintMaps() {
  for (const label of cards.keys()) if (!maps.has(label)) cards.delete(label);
  for (const label of maps.keys()) if (!cards.has(label)) cards.set(label, makeCard(label));
  const ordered = [...maps.keys()].map((label) => cards.get(label));
  place($("maps"), ordered.map((card) => card.element));
  for (const card of ordered) card.update();
  $("no-maps").hidden = maps.size > 0;
  const choice = $("map");
  choice.hidden = maps.size < 2;
  const labels = ["", ...maps.keys()];
  if (labels.length !== choice.options.length || labels.some((label, index) => choice.options[index].value !== label)) {
    choice.replaceChildren(...labels.map((label) => new Option(label || "All maps", label)));
  }
  choice.value = chosenMap();
}

// Recent events

const ROUTINE = new Set(["started", "queued", "superseded"]);
const PICTURE = { started: "running", succeeded: "succeeded", failed: "failed", cancelled: "cancelled", gave_up: "gave_up", overdue: "overdue", forgotten: "cancelled", expired: "waiting", queued: "pending", superseded: "cancelled" };

function sentence(event) {
  switch (event.kind) {
    case "started":
      return event.failures ? `started, after ${event.failures} failures in a row` : "started";
    case "succeeded":
      return event.failing_for === undefined
        ? `succeeded after ${span(event.duration)}`
        : `recovered: succeeded after ${span(event.duration)}, had failed for ${elapsed(event.failing_for)}`;
    case "failed": {
      const next = event.retry_in === undefined ? "" : `, ${event.will_retry ? "tries again" : "may start again"} in ${span(event.retry_in)}`;
      const row = event.failures > 1 ? `, ${event.failures} in a row` : "";
      return `failed after ${span(event.duration)}${row}${next}`;
    }
    case "cancelled":
      return event.duration === undefined ? "cancelled before it began" : `cancelled after ${span(event.duration)}`;
    case "gave_up":
      return `gave up after ${event.failures} failures in a row`;
    case "overdue":
      return `overdue: was asked to stop ${span(event.asked_ago)} ago, and runs on`;
    case "forgotten":
      return `forgotten: ${event.failures} failures`;
    case "expired":
      return `not tried again: ${event.failures} failures expired`;
    case "queued":
      return event.if_busy === "replace" ? "replaces the run in progress" : "queued behind the run in progress";
    default:
      return "superseded by a newer start";
  }
}

function isNotable(event) {
  return !ROUTINE.has(event.kind) && (event.kind !== "succeeded" || event.failing_for !== undefined);
}

// The last ones of each kind, so that successes do not displace failures.
function recent(all) {
  const last = (notable) => all.filter((event) => isNotable(event) === notable).slice(-KEPT);
  return [...last(true), ...last(false)].sort((a, b) => a.id - b.id);
}

let items = new WeakMap(); // by event: its element

function eventItem(event) {
  if (items.has(event)) return items.get(event);
  const item = element("li", event.kind);
  const time = element("time", "", clockTime(clocks.at + (performance.now() - clocks.received) / 1000 - event.at));
  time.dateTime = new Date(event.at * 1000).toISOString();
  const head = element("div");
  head.append(element("b", "", event.name));
  const more = [event.operation, maps.size > 1 ? `map ${event.map}` : undefined].filter(Boolean).join(" · ");
  if (more) head.append(" ", element("span", "more", more));
  const text = element("div", "what", sentence(event));
  if (event.error) text.append(element("small", "error", event.error));
  if (event.reason) text.append(element("small", "", event.reason));
  item.append(icon(PICTURE[event.kind] ?? "pending"), head, time, text);
  items.set(event, item);
  return item;
}

function paintEvents() {
  const only = $("notable").checked;
  const chosen = events.filter((event) => !only || isNotable(event)).slice(-EVENTS).reverse();
  place($("events"), chosen.map(eventItem));
  $("events").hidden = chosen.length === 0;
  $("no-events").hidden = chosen.length > 0;
  setText($("no-events"), events.length ? "Only routine so far: starts and successes." : "Nothing has happened yet.");
}

// Painting: once for any number of changes

const dirty = new Set();

function paint(...parts) {
  for (const part of parts) dirty.add(part);
  if (painting) return;
  painting = true;
  // While names are loaded, the list is not sorted for each piece of them.
  const schedule = loading && viewed ? setTimeout : requestAnimationFrame;
  schedule(() => {
    painting = false;
    if (dirty.has("rows")) {
      if (stale) refreshList();
      paintRows();
    }
    if (dirty.has("counts")) {
      paintTiles();
      paintSummary();
      announce();
    }
    if (dirty.has("maps")) paintMaps();
    if (dirty.has("events")) paintEvents();
    if (!viewed) performance.mark("first view");
    viewed = true;
    dirty.clear();
  }, 400);
}

function tick() {
  for (const { live } of shown.values()) for (const update of live) update();
  for (const [label, card] of cards) if (maps.has(label)) card.update();
}

let announced = "";
let announcedAt = -Infinity;
let announcing = 0;

function announce() {
  clearTimeout(announcing);
  const left = announcedAt + QUIET - performance.now();
  if (left > 0) {
    announcing = setTimeout(announce, left);
    return;
  }
  const state = $("connection").dataset.state;
  const text = state === "lost" ? `${$("connection-text").textContent}.` : `${summary()}.`;
  if (text === announced || !viewed) return;
  announced = text;
  announcedAt = performance.now();
  $("announcer").textContent = text;
}

// What comes from the server

function apply(message, version) {
  if (message.now) clocks = { at: message.at, now: message.now, received: performance.now() };
  for (const row of message.rows ?? []) {
    if ((rows.get(row.id)?.version ?? 0) > version || (gone.get(row.id) ?? 0) > version) continue;
    row.version = version;
    rows.set(row.id, row);
    stale = true;
  }
  for (const id of message.gone ?? []) {
    rows.delete(id);
    if (loading) gone.set(id, version);
    stale = true;
  }
  if (message.maps) applyMaps(message.maps);
  if (message.counts) counts = message.counts;
  if (message.events) events = recent([...events, ...message.events]);
  paint("rows", "counts", ...(message.maps ? ["maps"] : []), ...(message.maps || message.events ? ["events"] : []));
}

function applyMaps(changed) {
  const before = maps.size;
  for (const map of changed) maps.set(map.map, map);
  if (maps.size === before) return;
  stale = true;
  forgetElements(); // rows and events name their map if there are several
}

function forgetElements() {
  shown.clear();
  items = new WeakMap();
}

class Refused extends Error {
  constructor(status) {
    super(`the server answered ${status}`);
    this.status = status;
  }
}

async function get(address) {
  const signal = AbortSignal.timeout(PATIENCE);
  const answer = await fetch(address, { cache: "no-store", credentials: "same-origin", signal });
  if (!answer.ok) throw new Refused(answer.status);
  return answer.json();
}

async function begin() {
  close();
  if ($("connection").dataset.state !== "lost") connection("connecting", "Connecting");
  const mine = generation;
  let first;
  try {
    first = await get("api/snapshot");
  } catch (error) {
    if (mine !== generation) return;
    if (error.status === 401) askForToken();
    else tryAgain(error.status ? `The server answers ${error.status}` : undefined);
    return;
  }
  if (mine !== generation) return;
  rows.clear();
  gone.clear();
  maps.clear();
  forgetElements();
  events = [];
  stale = true;
  signedIn = false;
  title = first.title;
  loading = first.next !== null;
  $("sign-in").hidden = true;
  $("content").hidden = false;
  apply(first, first.version);
  open(first.version);
  await new Promise(requestAnimationFrame); // the first view comes before the other names
  if (mine !== generation) return;
  try {
    for (let next = first.next; next !== null; ) {
      const piece = await get(`api/snapshot?after=${next}`);
      if (mine !== generation) return;
      apply({ rows: piece.rows }, piece.version);
      next = piece.next;
    }
    loading = false;
    gone.clear();
    paint("rows");
    performance.mark("all names");
  } catch {
    if (mine === generation) tryAgain();
  }
}

function open(version) {
  source = new EventSource(`api/stream?since=${version}`);
  const mine = source;
  source.addEventListener("open", () => mine === source && alive());
  source.addEventListener("namedtasks.update", (event) => {
    if (mine !== source) return;
    hear(event, Number(event.lastEventId));
  });
  source.addEventListener("namedtasks.tick", (event) => mine === source && hear(event, 0));
  source.addEventListener("namedtasks.resync", () => mine === source && resync());
  source.addEventListener("error", () => {
    if (mine !== source) return;
    if (source.readyState === EventSource.CLOSED) tryAgain(); // it never opens again by itself
    else timers.lost ||= setTimeout(() => connection("lost", NO_CONNECTION), GRACE);
  });
  watch();
}

function hear(event, version) {
  alive();
  resynced = false;
  pause = 1_000;
  apply(JSON.parse(event.data), version);
}

// The server does not know the number that the stream began with: it has restarted, or several
// processes answer. In the second case the next stream may fail in the same way.
function resync() {
  if (resynced) {
    tryAgain("The server keeps changing");
    return;
  }
  resynced = true;
  begin();
}

function alive() {
  clearTimeout(timers.lost);
  timers.lost = 0;
  connection("live", "Live");
  watch();
}

function watch() {
  clearTimeout(timers.dead);
  timers.dead = setTimeout(begin, DEAD); // an EventSource does not notice a server that is gone
}

// Ends what is under way; an answer that comes later is dropped.
function close() {
  generation += 1;
  source?.close();
  source = null;
  for (const name of Object.keys(timers)) {
    clearTimeout(timers[name]);
    timers[name] = 0;
  }
}

const NO_CONNECTION = "No connection, trying again";

function tryAgain(problem) {
  close();
  connection("lost", problem ? `${problem}, trying again` : NO_CONNECTION);
  timers.again = setTimeout(begin, pause);
  pause = Math.min(pause * 2, PATIENCE);
}

function connection(state, text) {
  const pill = $("connection");
  setText($("connection-text"), text);
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  $("old").hidden = state !== "lost" || !viewed;
  const heardAgo = (performance.now() - clocks.received) / 1000;
  setText($("old"), `What follows may be out of date: it is from ${clockTime(heardAgo)}.`);
  announce();
}

// The token

function askForToken() {
  connection("locked", "Needs a token");
  $("content").hidden = true;
  $("summary").hidden = true;
  $("sign-in").hidden = false;
  if (signedIn) $("sign-in-error").textContent = NO_COOKIE;
  signedIn = false;
  $("token").focus();
}

const NO_COOKIE = "The token is right, but the browser did not keep the cookie. Allow cookies for this page.";

async function signIn(event) {
  event.preventDefault();
  const token = $("token").value.trim();
  let problem = "";
  if (/^[!-~]+$/.test(token)) {
    const headers = { Authorization: `Bearer ${token}` };
    const signal = AbortSignal.timeout(PATIENCE);
    const request = { method: "POST", headers, credentials: "same-origin", signal };
    const answer = await fetch("api/session", request).catch(() => null);
    if (answer === null) problem = "The server does not answer.";
    else if (answer.status === 401) problem = "This is not the token.";
    else if (!answer.ok) problem = `The server answers ${answer.status}.`;
  } else {
    problem = "This is not the token.";
  }
  $("sign-in-error").textContent = problem;
  if (problem) {
    $("token").select();
    return;
  }
  $("token").value = "";
  signedIn = true;
  begin();
}

// The view: what the reader wants to see; the address keeps it

const DEFAULTS = { filter: "all", text: "", map: "", sort: "urgency" };

function show(changes) {
  Object.assign(view, changes);
  stale = true;
  const kept = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS)) if (view[key] !== DEFAULTS[key]) kept.set(key, view[key]);
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
  paint("rows", "counts");
}

function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  if (Object.hasOwn(FILTERS, kept.get("filter") ?? "")) view.filter = kept.get("filter");
  if (Object.hasOwn(ORDERS, kept.get("sort") ?? "")) view.sort = kept.get("sort");
  view.text = kept.get("text") ?? "";
  view.map = kept.get("map") ?? "";
  $("filter").value = view.text;
  $("sort").value = view.sort;
}

function turn(pages) {
  if ($(pages < 0 ? "previous" : "next").getAttribute("aria-disabled") === "true") return;
  show({ page: view.page + pages });
  $("names-title").scrollIntoView();
}

function jump(title) {
  title.scrollIntoView();
  title.focus({ preventScroll: true });
}

makeTiles();
restore();
$("filter").addEventListener("input", (event) => show({ text: event.target.value, page: 0 }));
$("sort").addEventListener("change", (event) => show({ sort: event.target.value, page: 0 }));
$("map").addEventListener("change", (event) => show({ map: event.target.value, page: 0 }));
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
for (const part of ["maps", "events"]) {
  $(`to-${part}`).addEventListener("click", () => jump($(`${part}-title`)));
}
$("notable").addEventListener("change", () => paint("events"));
$("sign-in").addEventListener("submit", signIn);
document.addEventListener("visibilitychange", () => (document.hidden ? close() : begin()));
setInterval(tick, 1_000);
if (!document.hidden) begin();
