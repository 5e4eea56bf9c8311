// The page at /: audio files that are dropped get their waveform, their segments, a genre, who answered and why.
"use strict";

const area = document.querySelector(".segue-audio");
const drop = area.querySelector(".drop");
const chooser = drop.querySelector("input");
const token = area.querySelector(".token");
const INK = "#3b4151", FINE = "#3b5bdb", NONE = "#ced4da";

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function ask(file) {
  const form = new FormData();
  form.append("file", file);
  const secret = token.querySelector("input").value;
  const headers = secret ? { authorization: `Bearer ${secret}` } : {};
  const response = await fetch("./v1/classify", { method: "POST", body: form, headers });
  if (response.status === 401) token.hidden = false;
  const content = await response.json();
  if (!content.songs) throw new Error(content.error || `the server answered ${response.status}`);
  if (content.songs[0].error) throw new Error(content.songs[0].error);
  return { ...content.songs[0], mode: content.mode, threshold: content.threshold };
}

// Mono samples at a rate that is enough to draw; null where the browser cannot decode the file, as the server may.
async function samplesOf(file) {
  try {
    const sound = await new OfflineAudioContext(1, 1, 8000).decodeAudioData(await file.arrayBuffer());
    return sound.getChannelData(0);
  } catch {
    return null;
  }
}

function draw(canvas, samples, starts, seconds) {
  const scale = window.devicePixelRatio || 1;
  const width = (canvas.width = canvas.clientWidth * scale);
  const height = (canvas.height = canvas.clientHeight * scale);
  const pen = canvas.getContext("2d");
  const wave = height * 0.84;
  if (samples) {
    pen.fillStyle = INK;
    const loudest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
    for (let x = 0; x < width; x++) {
      const first = Math.floor((x * samples.length) / width);
      const end = Math.max(first + 1, Math.floor(((x + 1) * samples.length) / width));
      let low = 0, high = 0;
      for (let at = first; at < end; at++) {
        low = Math.min(low, samples[at]);
        high = Math.max(high, samples[at]);
      }
      const top = (wave / 2) * (1 - high / loudest), bottom = (wave / 2) * (1 - low / loudest);
      pen.fillRect(x, top, 1, Math.max(scale, bottom - top));
    }
  }
  starts.forEach((start, number) => {  // A strip below: each segment in one of two colours.
    const end = number + 1 < starts.length ? starts[number + 1] : seconds;
    pen.fillStyle = number % 2 ? NONE : FINE;
    pen.fillRect((start / seconds) * width, height * 0.88, Math.max(1, ((end - start) / seconds) * width), height * 0.12);
  });
}

function why(answer) {
  const sure = `${answer.answered_by === "student" ? "Its" : "The teacher's"} cross-entropy is ` +
    `${answer.cross_entropy_nats.toFixed(3)} nats (0 is certain)`;
  const limit = answer.threshold === null ? "" : answer.threshold.toFixed(3);
  if (answer.degraded) return `The ${answer.answered_by} answered: the rung above was asked for and is in trouble. ${sure}.`;
  if (answer.mode === "fast") return `The student answered: the server's mode is fast. ${sure}.`;
  if (answer.mode === "accurate") return `The ${answer.answered_by} answered: the server's mode is accurate. ${sure}.`;
  if (answer.rung === 1) return `The student answered: it was sure enough for the threshold of ${limit} nats. ${sure}.`;
  return `The ${answer.answered_by} answered on rung ${answer.rung}: the student's look was above the threshold of ` +
    `${limit} nats, so the song went on. ${sure}.`;
}

function show(song, answer) {
  song.append(element("div", answer.genre, "genre"), element("div", why(answer)));
  const bars = element("div", "", "bars");
  const all = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  all.slice(0, 8).forEach(([genre, probability], place) => {
    const bar = element("span", "", place ? "" : "first");
    bar.style.width = `${Math.max(0.5, 100 * probability)}%`;
    bars.append(element("span", genre), bar, element("span", probability.toFixed(3)));
  });
  song.append(bars);
}

async function classify(file) {
  const song = element("div", "", "song");
  const state = element("div", "is analysed ...", "quiet");
  song.append(element("h3", file.name), state);
  area.querySelector(".songs").prepend(song);
  try {
    const [answer, samples] = await Promise.all([ask(file), samplesOf(file)]);
    const { seconds, segment_starts_s: starts, warnings } = answer.recording;
    state.textContent = `${seconds.toFixed(1)} s, ${starts.length} segments, ${(starts.length / seconds).toFixed(1)} a second` +
      (samples ? "" : "; this browser cannot draw its waveform");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Waveform and segments of ${file.name}`);
    song.append(canvas);
    draw(canvas, samples, starts, seconds);
    warnings.forEach((warning) => song.append(element("div", warning, "attention")));
    show(song, answer);
  } catch (error) {
    state.textContent = error.message;
    state.className = "attention";
  }
}

async function take(files) {
  for (const file of files) await classify(file);
}

chooser.addEventListener("change", () => take([...chooser.files]).then(() => (chooser.value = "")));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {  // Anywhere on the page: a near miss would open the file in its place.
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
window.addEventListener("drop", (event) => take([...event.dataTransfer.files]));
