"use strict";
const FRAMES_A_SECOND = 3; // of /frames, which show what the model saw
const form = document.querySelector("form");
const [words, rerank, file] = [form.elements.q, form.elements.rerank, document.querySelector("input[type=file]")];
const [status, list] = [document.querySelector(".status"), document.querySelector("main")];
const blank = document.querySelector("template").content.firstElementChild;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let about = null;
let asking = null;

function say(text, error = false) {
  status.textContent = text;
  status.classList.toggle("error", error);
}

async function ask(path, options = {}) {
  asking?.abort();
  const own = (asking = new AbortController());
  let response;
  try {
    response = await fetch(path, { ...options, signal: own.signal });
  } catch (error) {
    if (error.name === "AbortError") return null;
    throw new Error("The server does not answer.");
  }
  const told = await response.json().catch(() => ({ error: `The server answers ${response.status}, and nothing that can be read.` }));
  if (!response.ok) throw new Error(told.error ?? `The server answers ${response.status}.`);
  return own.signal.aborted ? null : told;
}

async function show(path, options = {}, what = null) {
  list.classList.add("waiting");
  try {
    const told = await ask(path, options);
    if (!told) return;
    if (told.results.length) list.replaceChildren(...told.results.map(card));
    else nothing("Nothing found", "No video of this index compares with that.");
    const named = what ?? `like ${told.of}`;
    say(`${told.results.length} of ${about.videos.toLocaleString("en")} videos ${named}, ${Math.round(told.ms)} ms`);
    scrollTo(0, 0);
  } catch (error) {
    say(error.message, true);
  }
  list.classList.remove("waiting");
}

function nothing(title, text) {
  const box = document.createElement("div");
  box.className = "nothing";
  const head = document.createElement("b");
  head.textContent = title;
  box.append(head, text);
  list.replaceChildren(box);
}

function card(hit, place) {
  const one = blank.cloneNode(true);
  const video = one.querySelector("video");
  const best = hit.moments.reduce((top, moment, at) => (moment.similarity > hit.moments[top].similarity ? at : top), 0);
  one.dataset.row = hit.row;
  one.querySelector(".rank").textContent = place + 1;
  one.querySelector("h2").textContent = hit.file ? hit.path : hit.path.split("/").at(-1); // a clip's tar tells nothing
  one.querySelector("h2").title = hit.path;
  const fine = hit.fine === null ? "" : `match ${signed(hit.fine, 2)}, `;
  const at = hit.moments.length ? `\nbest at ${clock(hit.moments[best].seconds)}` : "";
  one.querySelector(".scores").textContent = `${fine}similar ${signed(hit.coarse, 3)}${at}`;
  one.setAttribute("aria-label", `${place + 1}: ${hit.path}, ${one.querySelector(".scores").textContent}`);
  one.hit = hit;
  one.moment = best;
  one.seen = !hit.file; // whether the frames are shown, not the file
  moments(one, best);
  video.addEventListener("error", () => (one.seen ? one.querySelector(".screen").classList.add("lost") : play(one, true)));
  video.addEventListener("timeupdate", () => tick(one));
  one.querySelector(".screen").addEventListener("click", () => toggle(video));
  one.querySelector(".similar").addEventListener("click", () => similar(hit.row));
  watcher.observe(one);
  return one;
}

function moments(one, best) {
  const likeness = one.hit.moments.map((moment) => moment.similarity);
  const [low, high] = [Math.min(...likeness), Math.max(...likeness)];
  const bars = one.hit.moments.map((moment, at) => {
    const bar = document.createElement("i");
    bar.style.height = `${high > low ? 25 + (75 * (moment.similarity - low)) / (high - low) : 60}%`;
    bar.title = `${clock(moment.seconds)}: ${moment.similarity?.toFixed(3)}`;
    bar.classList.toggle("best", at === best);
    bar.addEventListener("click", () => jump(one, at));
    return bar;
  });
  one.querySelector(".moments").replaceChildren(...bars);
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const video = target.querySelector("video");
    if (isIntersecting && !video.src) play(target, target.seen);
    if (isIntersecting && !still) video.play().catch(() => {});
    else video.pause();
  }
});

/** Load the file, or (seen) an mp4 of the frames that the model saw, at the best moment. */
function play(one, seen) {
  one.seen = seen;
  const video = one.querySelector("video");
  video.src = `/${seen ? "frames" : "video"}/${one.hit.row}`;
  video.addEventListener("loadedmetadata", () => (video.currentTime = timeOf(one, one.moment)), { once: true });
  if (!still) video.play().catch(() => {});
}

function timeOf(one, at) {
  return one.seen ? (at + 0.01) / FRAMES_A_SECOND : one.hit.moments[at]?.seconds ?? 0;
}

function jump(one, at) {
  if (!one.hit.moments.length) return;
  one.moment = (at + one.hit.moments.length) % one.hit.moments.length;
  one.querySelector("video").currentTime = timeOf(one, one.moment);
  tick(one);
}

/** Mark the moment that is shown. */
function tick(one) {
  const time = one.querySelector("video").currentTime;
  const bars = [...one.querySelectorAll(".moments i")];
  const now = bars.findLastIndex((_, at) => timeOf(one, at) <= time + 0.02);
  bars.forEach((bar, at) => bar.classList.toggle("now", at === now));
  one.moment = Math.max(now, 0);
  const shown = one.seen ? one.hit.moments[one.moment]?.seconds ?? 0 : time;
  one.querySelector(".clock").textContent = `${clock(shown)} / ${clock(one.hit.duration)}`;
}

function signed(value, digits) {
  return value.toFixed(digits).replace("-", "\u2212");
}

function clock(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function toggle(video) {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function search(keep = true) {
  const text = words.value.trim();
  if (!text) return words.focus();
  if (keep) history.pushState(null, "", `#q=${encodeURIComponent(text)}`);
  const told = rerank.checked ? `, the best ${about.rerank} re-ranked` : "";
  const body = JSON.stringify({ text, rerank: rerank.checked });
  show("/api/search", { method: "POST", headers: { "Content-Type": "application/json" }, body }, `for “${text}”${told}`);
}

function similar(row, keep = true) {
  if (keep) history.pushState(null, "", `#like=${row}`);
  show(`/api/similar/${row}`);
}

/** Do what the address says. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("like")) return similar(Number(asked.get("like")), false);
  words.value = asked.get("q") ?? "";
  if (words.value) return search(false);
  const damaged = about.damaged ? `, ${about.damaged.toLocaleString("en")} left out` : "";
  say(`${about.videos.toLocaleString("en")} videos of ${about.root}${damaged}`);
  nothing("What should be seen?", "Type it in a few words, such as “a dog runs on a beach”, or give a picture or a video.");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
rerank.addEventListener("change", () => new URLSearchParams(location.hash.slice(1)).has("like") || (words.value.trim() && search(false)));
file.addEventListener("change", () => {
  const [given] = file.files;
  file.value = "";
  if (!given) return;
  if (given.size > about.max_upload) return say(`${given.name} is too large: at most ${(about.max_upload / 1e6).toFixed(0)} MB`, true);
  say(`reading ${given.name} …`);
  show("/api/like", { method: "POST", body: given }, `like ${given.name}`);
});
addEventListener("popstate", follow);
addEventListener("keydown", (event) => {
  const typing = event.target === words;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...list.querySelectorAll("article")];
  const own = event.target.closest?.("article");
  const at = cards.indexOf(own);
  const keys = {
    "/": () => !typing && words.select(),
    r: () => !typing && about?.can_rerank && rerank.click(),
    Escape: () => (typing ? words.blur() : words.select()),
    ArrowDown: () => cards[Math.min(at + 1, cards.length - 1)]?.focus(),
    ArrowUp: () => (at > 0 ? cards[at - 1].focus() : words.select()),
    ArrowLeft: () => own && jump(own, own.moment - 1),
    ArrowRight: () => own && jump(own, own.moment + 1),
    " ": () => own && toggle(own.querySelector("video")),
    Enter: () => own && event.target === own && similar(Number(own.dataset.row)),
  };
  if (event.target.classList?.contains("file") && (event.key === "Enter" || event.key === " ")) file.click();
  else if (!keys[event.key] || keys[event.key]() === false || (typing && !["ArrowDown", "Escape"].includes(event.key))) return;
  else if (!own && ["ArrowLeft", "ArrowRight", " ", "Enter"].includes(event.key)) return;
  event.preventDefault();
});

(async () => {
  try {
    about = await ask("/api/about");
    words.maxLength = about.max_query;
    form.querySelector(".switch").classList.toggle("off", !about.can_rerank);
    rerank.checked = about.can_rerank;
    follow();
  } catch (error) {
    say(error.message, true);
  }
})();
