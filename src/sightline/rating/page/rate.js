const PATIENCE = 15000;
const KEYS = { 1: "first", ArrowLeft: "first", 2: "second", ArrowRight: "second", 0: "same", ArrowDown: "same" };
const SECONDS_A_PAIR = 6;

let state = null; // what the server last said: rater, link, and the pairs in this rater's order
let place = 0; // of the pair that is shown
let saving = false;

function show(section) {
  for (const id of ["start", "rate", "thanks"]) at(id).hidden = id !== section;
  const rated = state.pairs ? state.pairs.filter((pair) => pair.choice).length : 0;
  const minutes = Math.max(1, Math.round((state.total * SECONDS_A_PAIR) / 60));
  fill(".total", state.total);
  fill(".rated", rated);
  fill(".rater", state.rater || "");
  fill(".minutes", minutes === 1 ? "about a minute" : `about ${minutes} minutes`);
  for (const link of all(".own")) link.href = state.link || "/";
  at("progress").max = state.total;
  at("progress").value = rated;
  at("join").hidden = Boolean(state.rater);
  at("known").hidden = !state.rater;
  document.querySelector(`#${section} h1`).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function showPair() {
  const pair = state.pairs[place];
  at("label").textContent = pair.label;
  for (const part of ["image", "first", "second"]) at(part).src = `/picture/${pair[part]}`;
  for (const button of all("[data-choice]")) button.setAttribute("aria-pressed", button.dataset.choice === pair.choice);
  at("back").disabled = place === 0;
  show("rate");
  const next = state.pairs[place + 1];
  if (next) for (const part of ["image", "first", "second"]) new Image().src = `/picture/${next[part]}`;
}

function goOn() {
  const open = state.pairs.findIndex((pair) => !pair.choice);
  if (open < 0) return show("thanks");
  place = open;
  showPair();
}

function goBack() {
  if (saving || !state.pairs || at("start").hidden === false) return;
  place = at("thanks").hidden ? Math.max(0, place - 1) : state.pairs.length - 1;
  showPair();
}

async function vote(choice) {
  if (saving) return;
  saving = true;
  const pair = state.pairs[place];
  document.querySelector(`[data-choice=${choice}]`).setAttribute("aria-pressed", true);
  try {
    await ask("/vote", { pair: pair.pair, choice });
    pair.choice = choice;
    complain("");
    goOn();
  } catch (error) {
    complain(`This answer is not saved: ${error.message} Please give it again.`);
    for (const button of all("[data-choice]")) button.setAttribute("aria-pressed", button.dataset.choice === pair.choice);
  } finally {
    saving = false;
  }
}

async function load() {
  state = await ask("/state");
  show("start");
}

const leave = attempt(async () => {
  await ask("/leave", {});
  at("name").value = "";
  complain("");
  await load();
});

at("join").addEventListener("submit", attempt(async () => {
  await ask("/join", { name: at("name").value });
  complain("");
  state = await ask("/state");
  goOn();
}));
at("resume").addEventListener("click", goOn);
at("leave").addEventListener("click", leave);
at("next").addEventListener("click", leave);
at("review").addEventListener("click", goBack);
at("back").addEventListener("click", goBack);
at("help").addEventListener("click", () => show("start"));
for (const button of all("[data-choice]")) button.addEventListener("click", () => vote(button.dataset.choice));

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || at("start").hidden === false) return;
  const choice = KEYS[event.key];
  if (event.key === "ArrowUp" || (choice && !at("rate").hidden)) event.preventDefault();
  if (event.key === "ArrowUp") goBack();
  else if (choice && !at("rate").hidden) vote(choice);
});

attempt(load)();
