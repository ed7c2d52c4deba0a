// Keys, the score slider and live progress. Everything it does can be done without it.
"use strict";

const at = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

function follow(link) {
  if (link) link.click();
}

function isTyping(target) {
  return target.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), select, textarea");
}

// Galleries: arrows move from tile to tile, up and down by rows.
function moveInGallery(step, byRow) {
  const tiles = all(".gallery .tile");
  if (!tiles.length) return false;
  const here = tiles.indexOf(document.activeElement);
  if (here < 0) {
    tiles[0].focus();
    return true;
  }
  const top = tiles[0].getBoundingClientRect().top;
  const columns = tiles.filter((tile) => tile.getBoundingClientRect().top === top).length;
  const next = tiles[here + step * (byRow ? columns : 1)];
  if (next) next.focus();
  return Boolean(next);
}

function toggle(input) {
  if (!input) return;
  input.checked = !input.checked;
  remember(input);
}

// Which layers a person looks at stays so from item to item.
function remember(input) {
  try {
    sessionStorage.setItem(input.id, input.checked ? "on" : "off");
  } catch (error) {
    console.info("layers are not remembered:", error.message);
  }
}

function recall() {
  for (const input of all(".layer-switch")) {
    const known = sessionStorage.getItem(input.id);
    if (known) input.checked = known === "on";
    input.addEventListener("change", () => remember(input));
  }
}

const onItem = () => Boolean(at(".item-head"));

const KEYS = {
  ArrowLeft: () => (onItem() ? follow(at("a[rel=prev]")) : moveInGallery(-1, false)),
  ArrowRight: () => (onItem() ? follow(at("a[rel=next]")) : moveInGallery(1, false)),
  ArrowUp: () => !onItem() && moveInGallery(-1, true),
  ArrowDown: () => !onItem() && moveInGallery(1, true),
  n: () => follow(at("a[rel=next]")),
  p: () => follow(at("a[rel=prev]")),
  u: () => follow(at("a[rel=up]") || all(".crumbs a").pop()),
  z: () => toggle(at("#layer-zoom")),
  g: () => follow(at("[data-key=g]")),
  b: () => follow(at("[data-key=b]")),
  x: () => follow(at("[data-key=x]")),
  "/": () => at("input[type=search]")?.focus(),
  "?": () => at("dialog.keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  // A region that scrolls keeps its arrows; so does a slider.
  if (event.key.startsWith("Arrow") && event.target.matches(".scroll, input[type=range]")) return;
  const number = "123456789".indexOf(event.key);
  if (number >= 0) {
    toggle(all(".layer-switch:not(.zoom)")[number]);
    return;
  }
  const act = KEYS[event.key];
  if (!act) return;
  const arrowsElsewhere = event.key.startsWith("Arrow") && !onItem() && !at(".gallery .tile");
  if (arrowsElsewhere) return;
  act();
  event.preventDefault();
});

function watchScore() {
  const slider = at("#score");
  if (!slider) return;
  slider.closest("label").hidden = false;
  slider.addEventListener("input", () => {
    slider.nextElementSibling.value = Number(slider.value).toFixed(2);
    for (const shape of all("[data-score]")) shape.classList.toggle("low", Number(shape.dataset.score) < slider.value);
  });
}

// What a person opened or scrolled to stays so; a part that says the same stays as it is, with the focus in it.
function takeOver(part, successor) {
  const opened = [...part.querySelectorAll("details")].map((one) => one.open);
  successor.querySelectorAll("details").forEach((one, place) => (one.open = Boolean(opened[place])));
  if (part.isEqualNode(successor)) return;
  const scrolling = (one) => [one, ...one.querySelectorAll(".scroll")];
  const places = scrolling(part).map((one) => one.scrollLeft);
  part.replaceWith(successor);
  scrolling(successor).forEach((one, place) => (one.scrollLeft = places[place] ?? 0));
}

// A page of something that goes on asks for itself every three seconds and takes over the parts that change. Once
// nothing goes on any more all of it is another page: with what came of it, and what can be done now.
function watchProgress() {
  if (!at("[data-live]")) return;
  setTimeout(async () => {
    try {
      const answer = await fetch(location.href);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.ok && !fresh.querySelector("[data-live]")) location.reload();
      for (const part of answer.ok ? all("[data-live]") : []) {
        const successor = fresh.getElementById(part.id);
        if (successor) takeOver(part, successor);
      }
    } catch (error) {
      console.info("the page is not up to date:", error.message);
    }
    watchProgress();
  }, 3000);
}

const keysButton = at(".keys-button");
if (keysButton) {
  keysButton.hidden = false;
  keysButton.addEventListener("click", () => at("dialog.keys").showModal());
}
// On a narrow screen the middle of the stages is seen first: there the picture begins.
for (const wide of all(".graph")) wide.scrollLeft = (wide.scrollWidth - wide.clientWidth) / 2;
recall();
watchScore();
watchProgress();
