// A timeline of overlapping windows -> segments that do not overlap, as `cfnsr.inference.timeline` cuts them.

export const best = (probabilities) =>
  probabilities === null ? null : Object.keys(probabilities).reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));

// Each moment belongs to the window whose middle is nearest. Of one of several people there are gaps: then they
// were not to be seen, and such a segment has no window.
export function segments(timeline, begin, end) {
  const cut = [];
  let at = 0;
  timeline.forEach((window, number) => {
    const following = timeline[number + 1];
    const start = Math.max(at, window.start);
    let stop = window.end;
    if (following) {
      const middle = (window.start + window.end + following.start + following.end) / 4;
      stop = Math.min(stop, Math.max(following.start, Math.min(middle, window.end)));
    }
    if (stop > start) {
      cut.push({ ...window, start, end: stop, window: number, emotion: best(window.probabilities) });
      at = stop;
    }
  });
  const whole = [];
  let last = begin;
  for (const each of [...cut, { start: end, end }]) {
    if (each.start > last + 1e-6) {
      whole.push({ start: last, end: each.start, probabilities: null, face: false, speech: null, uses: [], window: null, emotion: null });
    }
    if (each.end > each.start) whole.push(each);
    last = each.end;
  }
  return whole;
}

// What was missing, and what the model did then.
export function mark(segment) {
  const missing = [];
  if (segment.face === false) missing.push("no face");
  if (segment.speech === false) missing.push("no speech");
  let then = "";
  if (segment.probabilities === null) then = "no answer";
  else if (missing.length && segment.uses.length === 1) then = segment.uses[0] === "video" ? "picture alone" : "voice alone";
  return [missing.join(", "), then].filter(Boolean).join(": ");
}

// Neighbours that have the same emotion and the same marks, as one; probabilities are means over their times.
export function joined(cut) {
  const runs = [];
  for (const each of cut) {
    const before = runs.at(-1);
    if (before && before.emotion === each.emotion && mark(before) === mark(each)) {
      const share = (before.end - before.start) / (each.end - before.start);
      if (each.emotion !== null) before.probability = share * before.probability + (1 - share) * each.probabilities[each.emotion];
      before.end = each.end;
    } else {
      runs.push({ ...each, probability: each.emotion === null ? null : each.probabilities[each.emotion] });
    }
  }
  return runs;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

// Minutes and seconds; tenths where they matter.
export function clock(seconds, tenths = false) {
  const whole = tenths ? Math.round(10 * seconds) / 10 : Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const rest = (whole % 60).toFixed(tenths ? 1 : 0).padStart(tenths ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
