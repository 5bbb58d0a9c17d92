const PATIENCE = 120000;
const JUDGE = { 1: "right", 2: "wrong", 3: "unclear" };
const TOOLS = { c: "inside", x: "outside", b: "box", d: "brush", e: "eraser" };
const HINTS = { // by pointer and by keys
  inside: ["Click on the object; its outline appears.", "Keyboard: arrows move the cursor, Space clicks."],
  outside: ["Click where the outline takes too much.", "Keyboard: arrows, then Space."],
  box: ["Draw a box around it.", "Keyboard: Space at one corner, arrows, Space at the other."],
  brush: ["Paint what is missing.", "Keyboard: Space puts the brush down, arrows, Space lifts it."],
  eraser: ["Erase what is too much.", "Keyboard: Space puts the eraser down, arrows, Space lifts it."],
};
const WORDS = { right: "Right place", wrong: "Wrong place", unclear: "Cannot tell" };

let state = null; // what the server last said of the session
let view = null; // the image that is shown, as the server knows it
let tool = "inside", layer = "object", zoom = 1, mapShown = true;
let cursor = null; // where the keys point, as shares of the width and the height
let gesture = null; // a box or a stroke that is not finished: { path, keys }
let seen = []; // images in the order in which this browser showed them
let place = -1; // in `seen`
let queue = Promise.resolve(); // actions reach the server in their order
let waiting = 0;
let polling = false;

const say = (text) => { at("said").textContent = text; };
const element = (name, text, parent) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};

// ---- sections

function show(section) {
  for (const id of ["start", "mark", "results", "all"]) at(id).hidden = id !== section;
  for (const name of ["marked", "total", "objects", "avoided", "title"]) fill(`.${name}`, state[name]);
  fill(".person", state.person || "");
  for (const link of all(".own")) link.href = state.link || "/";
  at("progress").max = state.total;
  at("progress").value = state.marked;
  at("join").hidden = Boolean(state.person);
  at("known").hidden = !state.person;
  document.querySelector(`#${section} h1`).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function refresh() {
  state = await ask("/state");
}

// ---- the image that is shown

function take(told) {
  view = told;
  state.marked = told.marked;
  fill(".marked", told.marked);
  at("progress").value = told.marked;
  at("label").textContent = `“${told.label}”`;
  at("predicted").textContent = `“${told.predicted}”`;
  at("file").textContent = `${told.name} · ${told.rank} of ${state.total} by how much the answer depends on the rest`;
  for (const button of all("[data-judge]")) button.setAttribute("aria-pressed", button.dataset.judge === told.judgement);
  at("accept").hidden = !told.suggested;
  at("undo").disabled = !told.undo && place <= 0;
  at("redo").disabled = !told.redo;
  at("clear").disabled = !(told[layer].mask || told[layer].inside.length || told[layer].box);
  at("masks").src = `/masks/${told.image}?v=${told.version}`;
  at("masks").alt = told.object.mask ? "Outline of the object" : told.suggested ? "Suggested outline" : "";
  draw();
}

function present(told) {
  gesture = null;
  cursor = [0.5, 0.5];
  zoom = 1;
  mapShown = true;
  tool = "inside";
  layer = "object";
  show("mark");
  take(told);
  at("image").alt = `${told.label}, file ${told.name}`;
  at("stage").setAttribute("aria-label", `Image: ${told.label}`);
  update();
  fit();
  at("stage").focus({ preventScroll: true });
}

function update() {
  at("image").src = `/${mapShown ? "map" : "image"}/${view.image}?s=${state.session}`;
  at("map").setAttribute("aria-pressed", mapShown);
  for (const button of all("[data-tool]")) {
    button.setAttribute("aria-pressed", button.dataset.tool === tool);
    button.disabled = button.dataset.tool === "outside" && !state.outside;
  }
  for (const button of all("[data-layer]")) button.setAttribute("aria-pressed", button.dataset.layer === layer);
  at("sizing").hidden = tool !== "brush" && tool !== "eraser";
  [at("by-pointer").textContent, at("by-keys").textContent] = HINTS[tool];
  at("sheet").classList.toggle("drawn", tool !== "inside" && tool !== "outside");
  at("previous").disabled = place <= 0;
  at("clear").disabled = !(view[layer].mask || view[layer].inside.length || view[layer].box);
  draw();
}

function fit() {
  if (!view) return;
  const stage = at("stage"), sheet = at("sheet");
  const high = parseFloat(getComputedStyle(stage).maxHeight) || window.innerHeight * 0.6;
  const width = Math.min(stage.clientWidth, (high * view.width) / view.height) * zoom;
  sheet.style.width = `${width}px`;
  sheet.style.height = `${(width * view.height) / view.width}px`;
  const scale = Math.min(window.devicePixelRatio || 1, 4096 / Math.max(width, 1));
  at("draw").width = Math.round(width * scale);
  at("draw").height = Math.round(((width * view.height) / view.width) * scale);
  draw();
}

function zoomTo(factor) {
  zoom = Math.min(8, Math.max(1, factor));
  fit();
  follow(true);
}

function follow(centered) {
  const stage = at("stage"), sheet = at("sheet");
  const x = cursor[0] * sheet.clientWidth, y = cursor[1] * sheet.clientHeight, edge = 30;
  if (centered || x < stage.scrollLeft + edge || x > stage.scrollLeft + stage.clientWidth - edge) stage.scrollLeft = x - stage.clientWidth / 2;
  if (centered || y < stage.scrollTop + edge || y > stage.scrollTop + stage.clientHeight - edge) stage.scrollTop = y - stage.clientHeight / 2;
}

const radius = () => at("size").value / 200; // of the longest side

function draw() {
  const canvas = at("draw"), pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!view) return;
  const ratio = canvas.width / Math.max(1, at("sheet").clientWidth);
  const spot = ([x, y]) => [x * canvas.width, y * canvas.height];
  const twice = (make, color, dash) => {
    for (const [style, width] of [["rgba(0,0,0,.75)", 4], [color, 2]]) {
      pen.setLineDash(dash || []);
      pen.strokeStyle = style;
      pen.lineWidth = width * ratio;
      pen.beginPath();
      make();
      pen.stroke();
    }
    pen.setLineDash([]);
  };
  const frame = ([x0, y0, x1, y1], color) => twice(() => pen.rect(x0 * canvas.width, y0 * canvas.height, (x1 - x0) * canvas.width, (y1 - y0) * canvas.height), color, [6 * ratio, 4 * ratio]);
  for (const name of ["object", "avoid"]) {
    const color = name === "object" ? "#2fe0a0" : "#ff5a50";
    if (view[name].box) frame(view[name].box, color);
    for (const [kind, points] of [["+", view[name].inside], ["−", view[name].outside]]) {
      for (const point of points) {
        const [x, y] = spot(point), reach = 6 * ratio;
        pen.beginPath();
        pen.arc(x, y, reach, 0, 7);
        pen.fillStyle = kind === "+" ? color : "#ffffff";
        pen.fill();
        twice(() => { pen.moveTo(x - reach / 2, y); pen.lineTo(x + reach / 2, y); if (kind === "+") { pen.moveTo(x, y - reach / 2); pen.lineTo(x, y + reach / 2); } }, "#000000");
      }
    }
  }
  if (gesture && tool === "box") frame(corners(gesture.path[0], gesture.path[gesture.path.length - 1]), "#ffffff");
  if (gesture && tool !== "box") {
    pen.strokeStyle = tool === "eraser" ? "rgba(255,255,255,.65)" : layer === "object" ? "rgba(0,200,120,.65)" : "rgba(230,40,40,.65)";
    pen.lineWidth = 2 * radius() * Math.max(canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    for (const point of [gesture.path[0], ...gesture.path]) pen.lineTo(...spot(point));
    pen.stroke();
  }
  if (document.activeElement === at("stage") && cursor) {
    const [x, y] = spot(cursor), reach = 12 * ratio;
    twice(() => { pen.moveTo(x - reach, y); pen.lineTo(x + reach, y); pen.moveTo(x, y - reach); pen.lineTo(x, y + reach); }, "#ffffff");
    if (tool === "brush" || tool === "eraser") twice(() => pen.arc(x, y, radius() * Math.max(canvas.width, canvas.height), 0, 7), "#ffffff");
  }
}

const corners = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];

// ---- actions

function send(path, body, told) {
  const image = view.image;
  waiting += 1;
  at("stage").setAttribute("aria-busy", "true");
  queue = queue.then(async () => {
    try {
      const answer = await ask(path, body(image));
      complain("");
      if (view.image === image) take(answer);
      if (told) await told(answer);
    } catch (error) {
      complain(`Not saved: ${error.message}`);
      draw();
    } finally {
      waiting -= 1;
      if (!waiting) at("stage").setAttribute("aria-busy", "false");
    }
  });
  return queue;
}

const act = (action, told) => send("/mark", (image) => ({ image, action }), told);

function judge(judgement) {
  const image = view.image;
  return act({ kind: "judge", judgement }, async () => {
    say(`${WORDS[judgement]}: saved`);
    if (judgement !== "wrong") return view.image === image && goOn();
    mapShown = false; // the object is easier to find without the map
    update();
  });
}

const accept = () => view.suggested && act({ kind: "accept" }, async () => { say("Outline accepted"); await goOn(); });

function useTool(point) {
  if (tool === "inside" || tool === "outside") {
    if (tool === "outside" && !state.outside) return;
    act({ kind: "click", layer, x: point[0], y: point[1], inside: tool === "inside" }, () => say("Outline found"));
  } else begin(point, true);
}

function begin(point, keys) {
  gesture = { path: [point], keys };
  draw();
}

function move(point) {
  if (!gesture) return;
  const last = gesture.path[gesture.path.length - 1];
  if (tool === "box" || gesture.path.length >= 1990) gesture.path = [gesture.path[0], ...gesture.path.slice(1, tool === "box" ? 1 : -1), point];
  else if (Math.hypot(point[0] - last[0], point[1] - last[1]) > 0.002) gesture.path.push(point);
  draw();
}

function finish() {
  const { path } = gesture;
  gesture = null;
  if (tool === "box") {
    const [x0, y0, x1, y1] = corners(path[0], path[path.length - 1]);
    if (x1 - x0 < 0.01 || y1 - y0 < 0.01) return draw();
    return act({ kind: "box", layer, x0, y0, x1, y1 }, () => say("Box saved"));
  }
  return act({ kind: "stroke", layer, path, radius: radius(), erase: tool === "eraser" }, () => say("Stroke saved"));
}

function drop() {
  gesture = null;
  draw();
}

function choose(name) {
  if (name === "outside" && !state.outside) return;
  drop();
  tool = name;
  update();
}

function chooseLayer(name) {
  drop();
  layer = name;
  tool = name === "avoid" ? "box" : "inside";
  update();
}

async function goTo(told) {
  if (told.image === null) {
    await refresh();
    return show("all");
  }
  seen = seen.slice(0, place + 1).concat(told.image);
  place = seen.length - 1;
  present(told);
}

async function goOn() {
  await refresh();
  if (place >= 0 && place < seen.length - 1) {
    place += 1;
    return present(await ask(`/open/${seen[place]}`));
  }
  await goTo(await ask("/next", { image: view ? view.image : null }));
}

async function goBack() {
  if (place <= 0) return;
  place -= 1;
  present(await ask(`/open/${seen[place]}`));
}

const goForward = () => queue.then(goOn);

async function undo(path) {
  await queue;
  if (path === "/undo" && !view.undo) { // a judgement has brought the next image: go back to what it was of
    if (place <= 0) return;
    await goBack();
    if (!view.undo) return;
  }
  await send(path, (image) => ({ image }), (answer) => say(answer.done ? `${path === "/undo" ? "Undone" : "Done again"}: ${answer.done}` : "Nothing to undo"));
}

// ---- refits

const number = (value) => (value === null ? "not defined" : Math.abs(value) <= 1 ? value.toFixed(3) : value.toPrecision(4));

function showRefits() {
  const running = state.refit.running;
  at("running").hidden = !running;
  at("share").value = state.refit.share;
  at("step").textContent = state.refit.text;
  at("refit").disabled = running || !state.marked;
  complain(state.refit.error || "");
  const last = state.refits[state.refits.length - 1];
  at("found").hidden = !last;
  if (!last) return;
  at("found-title").textContent = `Refit ${last.number}, with ${last.marked} marks: ${last.helped ? "better" : "not better"}`;
  at("summary").textContent = last.summary;
  at("figures").replaceChildren();
  for (const figure of last.figures) {
    const row = element("tr", undefined, at("figures"));
    element("th", figure.name, row).scope = "row";
    const interval = figure.interval && figure.interval.every((end) => end !== null) ? figure.interval.map(number).join(" to ") : "";
    for (const [label, text] of [["Before", number(figure.before)], ["After", number(figure.after)], ["Interval", interval]]) element("td", text, row).dataset.label = label;
  }
  const made = document.createElement("template");
  made.innerHTML = last.html; // inert; the content policy runs no script in it
  at("fragment").replaceChildren(made.content);
  at("first").textContent = last.figures.length ? last.figures[0].name : "";
  at("refits").replaceChildren();
  const rows = [{ number: null, marked: 0, at: "", after: last.figures.length ? last.figures[0].before : null }, ...state.refits.map((refit) => ({ ...refit, after: refit.figures.length ? refit.figures[0].after : null }))];
  for (const each of rows) {
    const row = element("tr", undefined, at("refits"));
    element("th", each.number === null ? "given model" : `refit ${each.number}`, row).scope = "row";
    const button = element("button", each.number === state.chosen ? "Chosen" : "Use this", element("td", undefined, row));
    for (const [label, text] of [["Marks", each.marked], [at("first").textContent, number(each.after)], ["Made", each.at.replace("T", " ").replace("+00:00", " UTC")]]) element("td", text, row).dataset.label = label;
    button.className = "plain";
    button.setAttribute("aria-pressed", each.number === state.chosen);
    button.setAttribute("aria-label", `Use ${each.number === null ? "the given model" : `refit ${each.number}`}`);
    button.addEventListener("click", attempt(async () => {
      state = await ask("/choose", { refit: each.number });
      showRefits();
    }));
  }
  showCurve(rows.filter((row) => row.after !== null), at("first").textContent);
}

function showCurve(points, name) {
  const old = at("curve").querySelector("svg");
  if (old) old.remove();
  at("curve").hidden = points.length < 2;
  if (points.length < 2) return;
  const svg = (kind, facts, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const values = points.map((point) => point.after), most = Math.max(...points.map((point) => point.marked), 1);
  const low = Math.min(0, ...values), high = Math.max(1, ...values);
  const x = (marked) => 40 + (marked / most) * 260, y = (value) => 130 - ((value - low) / (high - low)) * 115;
  const picture = svg("svg", { viewBox: "0 0 320 160", role: "img", "aria-label": `${name} over the number of marks` }, at("curve"));
  for (const value of [low, (low + high) / 2, high]) {
    svg("line", { class: "grid", x1: 40, x2: 310, y1: y(value), y2: y(value) }, picture);
    svg("text", { x: 34, y: y(value) + 4, "text-anchor": "end" }, picture, number(value).slice(0, 4));
  }
  svg("polyline", { class: "ours", points: points.map((point) => `${x(point.marked)},${y(point.after)}`).join(" ") }, picture);
  for (const point of points) svg("circle", { cx: x(point.marked), cy: y(point.after), r: 4, fill: "currentColor" }, picture);
  let free = Infinity; // a number is left out where it would touch the one on its right
  for (const marked of [...new Set(points.map((point) => point.marked))].sort((a, b) => b - a)) {
    if (x(marked) > free) continue;
    svg("text", { x: x(marked), y: 150, "text-anchor": "middle" }, picture, marked);
    free = x(marked) - 26;
  }
  at("curve").querySelector("figcaption").textContent = `${name} over the number of marks`;
}

async function poll() {
  if (polling) return;
  polling = true;
  try {
    do {
      await new Promise((done) => setTimeout(done, 500));
      await refresh();
      if (!at("results").hidden) showRefits();
    } while (state.refit.running);
    say(state.refit.error ? state.refit.error : "The refit is done");
  } finally {
    polling = false;
  }
}

async function openResults() {
  await queue;
  await refresh();
  at("exported").hidden = true;
  show("results");
  showRefits();
  if (state.refit.running) attempt(poll)();
}

async function goMarking() {
  if (view && place >= 0) present(await ask(`/open/${seen[place]}`));
  else await goOn();
}

// ---- events

const stage = at("stage"), sheet = at("sheet");
const share = (event) => {
  const area = sheet.getBoundingClientRect();
  const inside = (value) => Math.min(1, Math.max(0, value));
  return [inside((event.clientX - area.left) / area.width), inside((event.clientY - area.top) / area.height)];
};
let pressed = null; // where a click began

sheet.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button > 0) return;
  stage.focus({ preventScroll: true });
  cursor = share(event);
  if (tool === "inside" || tool === "outside") pressed = [event.clientX, event.clientY];
  else {
    event.preventDefault();
    stage.focus({ preventScroll: true });
    sheet.setPointerCapture(event.pointerId);
    begin(cursor, false);
  }
});
sheet.addEventListener("pointermove", (event) => {
  if (!event.isPrimary || !gesture || gesture.keys) return;
  cursor = share(event);
  move(cursor);
});
sheet.addEventListener("pointerup", (event) => {
  if (!event.isPrimary) return;
  cursor = share(event);
  if (pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 8) useTool(cursor);
  else if (gesture && !gesture.keys) {
    move(cursor);
    finish();
  }
  pressed = null;
});
sheet.addEventListener("pointercancel", () => { pressed = null; drop(); });
sheet.addEventListener("contextmenu", (event) => {
  if (!state.outside || (tool !== "inside" && tool !== "outside") || event.pointerType === "touch") return;
  event.preventDefault();
  const [x, y] = share(event);
  act({ kind: "click", layer, x, y, inside: false }, () => say("Outline found"));
});
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  cursor = share(event);
  zoomTo(zoom * (event.deltaY < 0 ? 1.25 : 0.8));
}, { passive: false });
stage.addEventListener("focus", draw);
stage.addEventListener("blur", draw);
window.addEventListener("resize", fit);

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function stepCursor(event) {
  const [dx, dy] = STEPS[event.key], step = (event.shiftKey ? 1 : 10) / Math.max(1, zoom);
  const inside = (value) => Math.min(1, Math.max(0, value));
  cursor = [inside(cursor[0] + (dx * step) / view.width), inside(cursor[1] + (dy * step) / view.height)];
  stage.focus({ preventScroll: true });
  if (gesture) move(cursor);
  follow(false);
  draw();
}

document.addEventListener("keydown", (event) => {
  if (at("mark").hidden) {
    if (event.key.toLowerCase() === "n" && !at("results").hidden && !event.ctrlKey && !event.metaKey && !event.altKey) attempt(goMarking)();
    return;
  }
  const field = event.target.closest("input");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    event.preventDefault();
    return void attempt(() => undo(key === "y" || event.shiftKey ? "/redo" : "/undo"))();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (STEPS[key] && !field) {
    event.preventDefault();
    return stepCursor(event);
  }
  if ((key === " " || key === "Enter") && (event.target === stage || event.target === document.body)) {
    event.preventDefault();
    if (event.repeat) return;
    return void (gesture && gesture.keys ? finish() : useTool(cursor));
  }
  if (event.repeat && key !== "+" && key !== "-" && key !== "[" && key !== "]") return;
  if (JUDGE[key]) judge(JUDGE[key]);
  else if (TOOLS[key]) choose(TOOLS[key]);
  else if (key === "a") accept();
  else if (key === "n") attempt(goForward)();
  else if (key === "p") attempt(goBack)();
  else if (key === "o") chooseLayer(layer === "object" ? "avoid" : "object");
  else if (key === "m") at("map").click();
  else if (key === "u") attempt(() => undo("/undo"))();
  else if (key === "y") attempt(() => undo("/redo"))();
  else if (key === "r") attempt(openResults)();
  else if (key === "+" || key === "=") zoomTo(zoom * 1.5);
  else if (key === "-") zoomTo(zoom / 1.5);
  else if (key === "0") zoomTo(1);
  else if (key === "[" || key === "]") { at("size").stepUp(key === "]" ? 1 : -1); draw(); }
  else if (key === "Escape") drop();
});

for (const button of all("[data-judge]")) button.addEventListener("click", () => judge(button.dataset.judge));
for (const button of all("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
for (const button of all("[data-layer]")) button.addEventListener("click", () => chooseLayer(button.dataset.layer));
at("accept").addEventListener("click", accept);
at("undo").addEventListener("click", attempt(() => undo("/undo")));
at("redo").addEventListener("click", attempt(() => undo("/redo")));
at("clear").addEventListener("click", () => act({ kind: "clear", layer }, () => say("Cleared")));
at("map").addEventListener("click", () => { mapShown = !mapShown; update(); });
at("in").addEventListener("click", () => zoomTo(zoom * 1.5));
at("out").addEventListener("click", () => zoomTo(zoom / 1.5));
at("fit").addEventListener("click", () => zoomTo(1));
at("size").addEventListener("input", draw);
at("next").addEventListener("click", attempt(goForward));
at("previous").addEventListener("click", attempt(goBack));
at("help").addEventListener("click", () => show("start"));
at("results-open").addEventListener("click", attempt(openResults));
at("all-results").addEventListener("click", attempt(openResults));
at("all-back").addEventListener("click", attempt(goMarking));
at("back").addEventListener("click", attempt(goMarking));
at("resume").addEventListener("click", attempt(goMarking));
at("refit").addEventListener("click", attempt(async () => {
  complain("");
  state.refit = await ask("/refit", {});
  showRefits();
  await poll();
}));
at("export").addEventListener("click", attempt(async () => {
  const told = await ask("/export", {});
  at("folder").textContent = told.folder;
  at("files").replaceChildren();
  const folders = new Map(); // masks are counted, other files are named
  for (const file of told.files) {
    const folder = /^(masks|avoid)\//.test(file) ? `${file.split("/")[0]}/` : file;
    folders.set(folder, (folders.get(folder) || 0) + 1);
  }
  for (const [name, count] of folders) element("li", name.endsWith("/") ? `${name} (${count} ${count === 1 ? "file" : "files"})` : name, at("files"));
  at("exported").hidden = false;
  say("Exported");
}));
at("join").addEventListener("submit", attempt(async () => {
  await ask("/join", { name: at("name").value });
  complain("");
  await refresh();
  await goOn();
}));
at("leave").addEventListener("click", attempt(async () => {
  await ask("/leave", {});
  at("name").value = "";
  view = null;
  seen = [];
  place = -1;
  await refresh();
  show("start");
}));

attempt(async () => {
  await refresh();
  show("start");
})();
