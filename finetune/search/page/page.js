"use strict";
const MOST = 200; // results of a search
const FRAMES_A_SECOND = 3; // of /frames, which show what the model saw
const form = document.querySelector("form");
const [words, rerank, file] = [form.elements.q, form.elements.rerank, document.querySelector("input[type=file]")];
const [asked, more, save] = [".asked", ".more", ".save"].map((one) => document.querySelector(one));
const [status, list] = [document.querySelector(".status"), document.querySelector("main")];
const blank = document.querySelector("template").content.firstElementChild;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let about = null;
let asking = null;
let last = null; // what is shown: how it was asked, and its hits

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
    throw new Error("The server does not answer. Is stillreel serve still running?");
  }
  const told = await response.json().catch(() => ({ error: `The server answers ${response.status}, and nothing that can be read.` }));
  if (!response.ok) throw new Error(told.error ?? `The server answers ${response.status}.`);
  return own.signal.aborted ? null : told;
}

/** Ask for the best k, and show them; `request` gives path and options of a k, and what it is in words. */
async function show(request, k = about.k) {
  list.classList.add("waiting");
  try {
    const { path, options, what, chip } = request(k);
    const told = await ask(path, options);
    if (!told) return;
    const grown = last?.request === request ? list.children.length : 0;
    if (!told.results.length) nothing("Nothing found", "No video of this index compares with that.");
    else if (grown) list.append(...told.results.slice(grown).map((hit, at) => card(hit, grown + at)));
    else list.replaceChildren(...told.results.map(card));
    last = { request, k, hits: told.results };
    const named = what ?? `like ${told.of}`;
    say(`${told.results.length} of ${about.videos.toLocaleString("en")} videos ${named}, ${Math.round(told.ms)} ms`);
    asked.hidden = !chip;
    asked.querySelector("b").textContent = chip === "similar" ? `similar to ${told.of.split("/").at(-1)}` : (chip ?? "");
    if (chip) words.value = "";
    found(told.results.length, k);
    if (grown) list.children[grown]?.focus();
    else scrollTo(0, 0);
  } catch (error) {
    say(error.message, true);
  }
  list.classList.remove("waiting");
}

/** What can be done with this many results of k that were asked for. */
function found(count, k) {
  more.hidden = !count || count < k || k >= MOST || count >= about.videos;
  save.hidden = !count;
  document.body.classList.toggle("with-results", count > 0);
}

function nothing(title, text) {
  const box = document.createElement("div");
  box.className = "nothing";
  const head = document.createElement("b");
  head.textContent = title;
  box.append(head, text);
  list.replaceChildren(box);
  last = null;
  found(0, 0);
}

function csv(hits) {
  const field = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const rows = hits.map((hit, at) => {
    const best = hit.moments.reduce((top, one) => (one.similarity > (top?.similarity ?? -2) ? one : top), null);
    return [at + 1, hit.path, hit.coarse, hit.fine, best?.seconds, hit.duration];
  });
  return [["place", "path", "similarity", "match", "best_at_seconds", "seconds"], ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
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
  video.addEventListener("play", () => video.paused || silence(video)); // by its own controls
  one.addEventListener("pointerenter", () => still || toggle(video, true));
  one.addEventListener("pointerleave", () => video.muted && !one.contains(document.activeElement) && video.pause());
  one.addEventListener("focusin", () => still || toggle(video, true));
  one.querySelector(".similar").addEventListener("click", () => similar(hit.row));
  one.querySelector(".copy").addEventListener("click", () => copy(hit.path));
  const open = one.querySelector(".open");
  open.hidden = !hit.file;
  open.href = `/video/${hit.row}#t=${hit.moments[best]?.seconds ?? 0}`;
  open.setAttribute("aria-label", `open ${hit.path}`);
  one.querySelector(".similar").setAttribute("aria-label", `similar to ${hit.path}`);
  one.querySelector(".copy").setAttribute("aria-label", `copy path of ${hit.path}`);
  watcher.observe(one);
  return one;
}

function moments(one, best) {
  const likeness = one.hit.moments.map((moment) => moment.similarity);
  const [low, high] = [Math.min(...likeness), Math.max(...likeness)];
  // Each bar lies where its frame is in the video, from half the way to the one before to half the way to the next.
  const times = one.hit.moments.map((moment) => moment.seconds);
  const long = Math.max(one.hit.duration, times.at(-1) ?? 0, 1e-3);
  const edges = [0, ...times.slice(1).map((time, at) => (time + times[at]) / 2), long].map((time) => (100 * time) / long);
  const bars = one.hit.moments.map((moment, at) => {
    const bar = document.createElement("i");
    bar.style.left = `${edges[at]}%`;
    bar.style.width = `${edges[at + 1] - edges[at]}%`;
    bar.style.height = `${high > low ? 25 + (75 * (moment.similarity - low)) / (high - low) : 60}%`;
    bar.title = `${clock(moment.seconds)}: ${moment.similarity?.toFixed(3)}`;
    bar.classList.toggle("best", at === best);
    bar.addEventListener("click", () => jump(one, at));
    return bar;
  });
  one.querySelector(".moments").replaceChildren(...bars, document.createElement("u"));
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const video = target.querySelector("video");
    if (isIntersecting && !video.src) play(target, target.seen);
    if (!isIntersecting && !document.fullscreenElement) video.pause();
  }
});

/** Load the file, or (seen) an mp4 of the frames that the model saw, at the best moment. */
function play(one, seen) {
  one.seen = seen;
  const video = one.querySelector("video");
  video.src = `/${seen ? "frames" : "video"}/${one.hit.row}`;
  video.addEventListener("loadedmetadata", () => (video.currentTime = timeOf(one, one.moment)), { once: true });
}

/** One video plays at a time. */
function silence(but) {
  for (const video of list.querySelectorAll("video")) if (video !== but) video.pause();
}

async function copy(path) {
  const whole = about.folder ? `${about.folder}/${path}` : path;
  try {
    await navigator.clipboard.writeText(whole);
    say(`copied: ${whole}`);
  } catch {
    say(`The browser lets nothing be copied here. The path is ${whole}`);
  }
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
  const head = one.querySelector(".moments u");
  head.style.left = `${Math.min(100, (100 * (one.seen ? one.hit.moments[Math.max(now, 0)]?.seconds ?? 0 : time)) / Math.max(one.hit.duration, 1e-3))}%`;
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

function toggle(video, on = video.paused) {
  if (!on) return video.pause();
  silence(video);
  video.play().catch(() => {});
}

function search(keep = true) {
  const text = words.value.trim();
  if (!text) return words.focus();
  if (keep) history.pushState(null, "", `#q=${encodeURIComponent(text)}`);
  const told = rerank.checked ? `, the best ${about.rerank} re-ranked` : "";
  const asks = (k) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text, rerank: ranked, k }) });
  const ranked = rerank.checked;
  show((k) => ({ path: "/api/search", options: asks(k), what: `for “${text}”${told}` }));
}

function similar(row, keep = true) {
  if (keep) history.pushState(null, "", `#like=${row}`);
  show((k) => ({ path: `/api/similar/${row}?k=${k}`, chip: "similar" }));
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
  const chip = `${given.type.startsWith("image/") ? "picture" : "video"} ${given.name}`;
  show((k) => ({ path: `/api/like?k=${k}`, options: { method: "POST", body: given }, what: `like ${given.name}`, chip }));
});
document.querySelector(".file").addEventListener("click", () => file.click());
asked.querySelector("button").addEventListener("click", () => {
  asked.hidden = true;
  words.focus();
});
more.addEventListener("click", () => last && show(last.request, Math.min(last.k + about.k, MOST)));
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(last?.hits ?? [])], { type: "text/csv" }));
  link.download = "results.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
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
    ArrowLeft: () => event.target === own && jump(own, own.moment - 1),
    ArrowRight: () => event.target === own && jump(own, own.moment + 1),
    " ": () => event.target === own && toggle(own.querySelector("video")),
    f: () => !typing && own && own.querySelector("video").requestFullscreen().catch(() => {}),
    Enter: () => event.target === own && similar(Number(own.dataset.row)),
  };
  const onlyOfCard = ["ArrowLeft", "ArrowRight", " ", "Enter"].includes(event.key);
  if (onlyOfCard && (!own || event.target !== own)) return; // buttons and a video's own controls do what they do
  if (!keys[event.key] || keys[event.key]() === false || (typing && !["ArrowDown", "Escape"].includes(event.key))) return;
  event.preventDefault();
});

(async () => {
  try {
    about = await ask("/api/about");
    words.maxLength = about.max_query;
    form.querySelector(".switch").classList.toggle("off", !about.can_rerank);
    document.querySelector(".of-ranks").hidden = !about.can_rerank;
    rerank.checked = about.can_rerank;
    follow();
  } catch (error) {
    say(error.message, true);
  }
})();
