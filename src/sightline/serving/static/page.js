"use strict";

// What the scripts of local pages share. A page defines PATIENCE, the milliseconds that it waits for an answer.

const at = (id) => document.getElementById(id);
const all = (selector) => document.querySelectorAll(selector);
const fill = (selector, text) => { for (const element of all(selector)) element.textContent = text; };

async function ask(path, body) {
  const request = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...request, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `The server answered ${answer.status}.`);
  return told;
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
}

function attempt(action) {
  return async (event) => {
    if (event) event.preventDefault();
    try {
      await action();
    } catch (error) {
      complain(error.message);
    }
  };
}

