// The page: a recording is chosen, sent, waited for and shown.

import { Problem, ask, askJson, forget, send } from "./api.js";
import { clock, joined, mark, percent } from "./segments.js";
import { Studio } from "./studio.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const KINDS = { json: "JSON", csv: "CSV", srt: "SRT", vtt: "VTT", png: "Picture" };
const TITLES = {
  json: "Everything, for programs",
  csv: "A table of the windows",
  srt: "Subtitles (SubRip)",
  vtt: "Subtitles (WebVTT)",
  png: "The timeline as a picture",
};
const POLL = [150, 400]; // milliseconds from question to question: at first, later
const MIB = 1024 * 1024;

let settings;
let studio;
let job = null; // of the result that is shown, as long as the server has it
let running = null; // what ends the work that is under way
let result = null;
let name = "";

const player = $("player");
const timeline = new Timeline(document.querySelector(".timeline"), { jump, play, moved });

const said = (text) => { $("status").textContent = text; };
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const inWords = (seconds) => (seconds >= 120 ? `${Math.round(seconds / 60)} minutes` : `${Math.round(seconds)} seconds`);

// The server knows no names of files, so the page puts them in.
function complain(error, file = null) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) console.error(error);
  const text = error instanceof Problem ? error.message : "Something went wrong on this page: load it anew.";
  const named = text.match(/^upload(\.\w+)? /);
  $("error").textContent = file && named ? file.name + text.slice(named[0].length - 1) : text[0].toUpperCase() + text.slice(1);
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

function phase(text, done = null, total = 1) {
  $("phase").textContent = text;
  if (done === null) $("progress").removeAttribute("value");
  else [$("progress").max, $("progress").value] = [total, done];
}

// From a file to its result; what was under way before is stopped.
async function look(file) {
  stop();
  const work = { controller: new AbortController(), job: null };
  running = work;
  const { signal } = work.controller;
  $("error").hidden = true;
  $("result").hidden = true;
  $("busy").hidden = false;
  try {
    if (file.size > settings.maxBytes) {
      throw new Problem(`upload has ${(file.size / MIB).toFixed(0)} MiB: expected at most ${(settings.maxBytes / MIB).toFixed(0)}; cut it or compress it.`);
    }
    phase("Sending", 0);
    said(`Sending ${file.name}`);
    work.job = await send(file, parameters(), (share) => phase(share < 1 ? `Sending: ${percent(share)}` : "Sent", share), signal);
    if (signal.aborted) { // it was stopped while the server answered
      forget(work.job);
      return;
    }
    said("Sent; the model is at work");
    const state = await waitFor(work.job, signal);
    if (state.error) throw new Problem(state.error.message);
    if (state.state !== "done") throw new Problem("The work was stopped: send the recording again.");
    job = work.job;
    work.job = null;
    show(file, state);
  } catch (error) {
    complain(error, file);
  } finally {
    if (running === work) {
      running = null;
      $("busy").hidden = true;
    }
  }
}

async function waitFor(id, signal) {
  let announced = 0;
  for (let asked = 0; ; asked++) {
    const state = await askJson(`/jobs/${id}`, { signal });
    const { done, total } = state.progress;
    if (state.state === "waiting") phase(state.before ? `Waiting: ${state.before} before this one` : "Waiting");
    else if (state.state !== "working") return state;
    else if (total < 2) phase("The model looks and listens");
    else {
      phase(`The model looks and listens: ${done} of ${total} windows`, done, total);
      if (done / total >= announced + 0.25) { // a screen reader need not hear each window
        announced = done / total;
        said(`${percent(announced)} done`);
      }
    }
    await pause(asked < 10 ? POLL[0] : POLL[1]);
    if (signal.aborted) throw new DOMException("stopped", "AbortError");
  }
}

function parameters() {
  const query = { hop: $("hop").value || "1" };
  if ($("window").value) query.window = $("window").value;
  if ($("video-stream").value) query.video_stream = $("video-stream").value;
  if ($("audio-stream").value) query.audio_stream = $("audio-stream").value;
  if ($("all-faces").checked) query.all_faces = "true";
  if ($("keep").checked && settings.explains) query.explain = "true";
  return query;
}

// End what is under way, and delete what the server has of this page.
function stop() {
  running?.controller.abort();
  if (running?.job) forget(running.job);
  running = null;
  if (job) forget(job);
  job = null;
  clearTimeout(stop.timer);
  studio?.close();
}

function show(file, state) {
  result = { ...state.result, words: state.words };
  name = file.name.replace(/\.[^.]*$/, "") || "recording";
  $("result-title").textContent = file.name;
  $("result").hidden = false;
  load(file);
  showPeople();
  showWhom(0);
  showKept(state);
  $("result-title").focus();
  said(`Done. ${state.words[0]}`);
}

function load(file) {
  URL.revokeObjectURL(player.src);
  $("unplayable").hidden = true;
  player.hidden = false;
  player.src = URL.createObjectURL(file);
}

player.addEventListener("error", () => {
  if (!player.getAttribute("src")) return;
  player.hidden = true;
  $("unplayable").hidden = false;
});
player.addEventListener("loadedmetadata", () => {
  // A browser's recording has no length: it is found by a seek beyond the end.
  if (player.duration === Infinity) {
    player.addEventListener("durationchange", () => { player.currentTime = 0; }, { once: true });
    player.currentTime = 1e7;
  }
});
player.addEventListener("timeupdate", follow);
player.addEventListener("seeked", follow);
player.addEventListener("play", function tick() {
  follow();
  if (!player.paused && !player.ended) requestAnimationFrame(tick);
});

function follow() {
  if (player.currentTime < 1e6 && result) timeline.at(player.currentTime);
}

function jump(second) {
  timeline.at(second);
  if (!player.hidden) player.currentTime = second;
}

function play() {
  if (player.hidden) return;
  if (player.paused) player.play().catch(() => {});
  else player.pause();
}

function showPeople() {
  const people = result.people ?? [];
  $("people").hidden = people.length < 2;
  $("people").querySelectorAll("label").forEach((label) => label.remove());
  if (people.length < 2) return;
  [null, ...people].forEach((person, place) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "person", checked: place === 0 });
    radio.addEventListener("change", () => showWhom(place));
    label.append(radio, person ? `Person ${person.person}` : "Largest face");
    $("people").append(label);
  });
}

// 0 is the whole, then each person.
let whom = 0;
function showWhom(place) {
  whom = place;
  const shown = place ? result.people[place - 1] : result;
  const all = result.timeline;
  $("words").textContent = result.words[place];
  timeline.show(shown.timeline, all[0].start, all.at(-1).end, settings.colours);
  if (!player.hidden) follow();
  const rows = joined(timeline.cut).map((each) => {
    const row = document.createElement("tr");
    const from = Object.assign(document.createElement("th"), { scope: "row" });
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: clock(each.start, true) });
    button.setAttribute("aria-label", `Jump to ${clock(each.start, true)}`);
    button.addEventListener("click", () => jump(each.start));
    from.append(button);
    row.append(from);
    const cells = [clock(each.end, true), each.emotion ?? "–", each.emotion ? percent(each.probability) : "–", mark(each) || "–"];
    cells.forEach((text, column) => {
      const cell = Object.assign(document.createElement("td"), { textContent: text });
      if (column === 2) cell.className = "number";
      row.append(cell);
    });
    return row;
  });
  document.querySelector("#table tbody").replaceChildren(...rows);
  $("explanation").hidden = true;
}

let chosen = null;
function moved(segment, text) {
  chosen = segment;
  $("here").textContent = text;
  const able = segment.probabilities !== null && segment.window !== null;
  $("explain").disabled = !able || !job;
}

async function explain() {
  const segment = chosen;
  const [mine, of] = [job, whom];
  const shown = of ? result.people[of - 1] : result;
  const asked = () => job === mine && whom === of; // else another recording or person is shown by now
  const person = of ? shown.person : null;
  const query = new URLSearchParams({ window: segment.window, ...(person ? { person } : {}) });
  const address = `/jobs/${job}/explanation?${query}`;
  const button = $("explain");
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  button.textContent = "Explaining …";
  said("Explaining");
  $("error").hidden = true;
  try {
    const explanation = await askJson(address);
    if (asked()) showExplanation(shown.timeline[segment.window], explanation);
    const picture = asked() && (await (await ask(`${address}&format=png`)).blob());
    if (asked()) showSheet(picture);
  } catch (error) {
    if (asked()) complain(error);
  } finally {
    button.removeAttribute("aria-busy");
    button.disabled = !job || chosen.probabilities === null || chosen.window === null;
    button.textContent = "Explain this part";
  }
}

function showExplanation(window, explanation) {
  const modality = { video: "pictures", audio: "sound" };
  $("explanation-title").textContent = `Why ${explanation.emotion}: the window from ${clock(window.start, true)} to ${clock(window.end, true)}`;
  const reasons = [`Probability of ${explanation.emotion} by all that was seen and heard: ${percent(explanation.probabilities[explanation.emotion])}.`];
  for (const each of explanation.contributions) {
    reasons.push(`Without the ${modality[each.modality]} (${each.instead}): ${percent(each.probabilities[explanation.emotion])}.`);
  }
  if (explanation.contributions.length && !explanation.tolerant) reasons.push("The model was never trained to do without one of the two.");
  for (const block of explanation.blocks.slice(0, 1)) {
    const even = Math.exp(Math.log(explanation.probabilities[explanation.emotion]) - block.moved);
    reasons.push(`Had it looked everywhere alike, about ${percent(even)}${block.effective ? "" : ": where it looked had no effect on this answer"}.`);
  }
  $("reasons").replaceChildren(...reasons.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  $("sheet").parentElement.hidden = true; // until it is drawn
  $("explanation").hidden = false;
  $("explanation-title").focus();
  said(reasons.join(" "));
}

function showSheet(picture) {
  const sheet = $("sheet");
  URL.revokeObjectURL(sheet.src);
  sheet.src = URL.createObjectURL(picture);
  sheet.alt = "Where the model looked, which part of the sound it chose, and how the answer changes without pictures or sound; the figures are in the list above.";
  sheet.parentElement.hidden = false;
}

function showKept(state) {
  const seconds = state.seconds_left;
  const what = state.explainable ? "The recording and the result stay" : "The recording is deleted; the result stays";
  $("kept").textContent = `${what} on the server for ${inWords(seconds)}, or until you delete them or leave this page.`;
  $("forget").disabled = false;
  $("explain").hidden = !state.explainable;
  setDownloads(true);
  if (chosen) moved(chosen, $("here").textContent);
  clearTimeout(stop.timer);
  stop.timer = setTimeout(() => gone("The time is over: the server has deleted recording and result. What you see is in this browser alone."), 1000 * seconds);
}

function gone(text) {
  job = null;
  $("kept").textContent = text;
  $("forget").disabled = true;
  $("explain").disabled = true;
  setDownloads(false);
  said(text);
}

function setDownloads(able) {
  $("downloads").querySelectorAll("button").forEach((button) => {
    button.disabled = !able && button.dataset.kind !== "json";
  });
}

async function download(kind) {
  $("error").hidden = true;
  try {
    const { words, ...prediction } = result;
    const blob = kind === "json" ? new Blob([`${JSON.stringify(prediction, null, 2)}\n`], { type: "application/json" }) : await (await ask(`/jobs/${job}/timeline.${kind}`)).blob();
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${name}.${kind}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    said(`${name}.${kind} is downloaded`);
  } catch (error) {
    complain(error);
  }
}

async function tryExample(example) {
  stop();
  $("error").hidden = true;
  $("result").hidden = true;
  $("busy").hidden = false;
  const work = { controller: new AbortController(), job: null };
  running = work;
  phase("The example is being drawn");
  try {
    const response = await fetch(`/examples/${example.name}.mp4`, { signal: work.controller.signal });
    if (!response.ok) throw new Problem("The example could not be drawn: see the server's log.");
    const blob = await response.blob();
    if (running === work) await look(new File([blob], `${example.name}.mp4`, { type: "video/mp4" }));
  } catch (error) {
    complain(error);
  } finally {
    if (running === work) {
      running = null;
      $("busy").hidden = true;
    }
  }
}

function listen() {
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) look(file);
    $("file").value = ""; // so that the same file may be chosen again
  });
  $("record").addEventListener("click", () => {
    $("error").hidden = true;
    studio.close();
    studio.open();
  });
  $("cancel").addEventListener("click", () => {
    stop();
    $("busy").hidden = true;
    said("Cancelled");
    $("file").focus();
  });
  $("explain").addEventListener("click", explain);
  $("forget").addEventListener("click", async () => {
    const mine = job;
    const deleted = await forget(mine);
    if (job !== mine) return; // another recording is shown by now
    if (deleted) gone("Deleted. What you see is in this browser alone.");
    else complain(new Problem("The server did not delete it: try again, or it goes by itself after its time."));
  });
  for (const kind of Object.keys(KINDS)) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: KINDS[kind], title: TITLES[kind] });
    button.dataset.kind = kind;
    button.addEventListener("click", () => download(kind));
    const item = document.createElement("li");
    item.append(button);
    $("downloads").append(item);
  }
  const drop = $("drop");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.remove("over");
    });
  }
  document.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer?.files ?? [];
    if (file) look(file);
  });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => {
    if (event.persisted && result) gone("The recording was deleted when you left the page. What you see is in this browser alone.");
  });
}

async function begin() {
  listen();
  settings = await askJson("/settings");
  const { sees, hears, either } = settings;
  $("model").textContent = `Model ${settings.about || settings.model}, cfnsr ${settings.version}.`;
  const sound = !sees || either; // alone will do
  const kind = sound ? "A video or a sound recording" : hears ? "A video with sound" : "A video";
  $("bounds").textContent = `${kind} of at most ${inWords(settings.maxSeconds)} and ${Math.round(settings.maxBytes / MIB)} MiB.`;
  $("file").accept = [sound ? "video/*,audio/*" : "video/*", ...settings.suffixes].join(",");
  $("record").textContent = sees ? "Record with the webcam" : "Record with the microphone";
  $("all-faces-field").hidden = !settings.allFaces;
  $("keep-field").hidden = $("kept-note").hidden = !settings.explains;
  document.querySelectorAll(".kept").forEach((each) => { each.textContent = inWords(settings.keepSeconds); });
  studio = new Studio($("studio"), { sees, hears, longest: settings.maxSeconds, recorded: look, failed: complain });
  for (const example of settings.examples) {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: example.title });
    button.addEventListener("click", () => tryExample(example));
    item.append(button);
    $("examples").querySelector("ul").append(item);
  }
  $("examples").hidden = !settings.examples.length;
}

begin().catch(complain);
