// Recording with the webcam.

import { Problem } from "./api.js";
import { clock } from "./segments.js";

const KINDS = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4", "audio/webm", "audio/mp4"];
const DENIED = {
  NotAllowedError: "The browser did not let the page use camera and microphone: allow it beside the address, or choose a file.",
  NotFoundError: "No camera or no microphone was found: plug one in, or choose a file.",
  NotReadableError: "The camera or the microphone is in use elsewhere: close the other program, or choose a file.",
};

export class Studio {
  // `recorded` is called with the file, `failed` with an error.
  constructor(root, { sees, hears, longest, recorded, failed }) {
    const find = (id) => root.querySelector(`#${id}`);
    Object.assign(this, { root, sees, hears, longest, recorded, failed });
    this.preview = find("preview");
    this.start = find("start");
    this.stop = find("stop");
    this.elapsed = find("elapsed");
    this.start.addEventListener("click", () => this.#record());
    this.stop.addEventListener("click", () => this.recorder.stop());
    find("leave").addEventListener("click", () => this.close());
  }

  async open() {
    const turn = (this.turn = (this.turn ?? 0) + 1); // a camera that opens after its turn is closed at once
    let stream;
    try {
      if (!navigator.mediaDevices || !window.MediaRecorder) {
        throw new Problem("The browser lets no page record here: open it as http://localhost, or choose a file.");
      }
      const picture = this.sees ? { facingMode: "user", width: { ideal: 1280 } } : false;
      stream = await navigator.mediaDevices.getUserMedia({ video: picture, audio: this.hears });
    } catch (error) {
      if (turn === this.turn) {
        this.failed(error instanceof Problem ? error : new Problem(DENIED[error.name] ?? `The camera does not work: ${error.message}`));
      }
      return;
    }
    if (turn !== this.turn) {
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    this.preview.hidden = !this.sees;
    this.preview.srcObject = this.stream;
    this.preview.play().catch(() => {});
    this.root.hidden = false;
    this.start.hidden = false;
    this.stop.hidden = true;
    this.elapsed.textContent = "";
    this.start.focus();
  }

  close() {
    this.turn = (this.turn ?? 0) + 1;
    if (this.recorder?.state === "recording") {
      this.recorder.onstop = null;
      this.recorder.stop();
    }
    clearInterval(this.ticking);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.preview.srcObject = null;
    this.root.hidden = true;
  }

  #record() {
    const parts = [];
    const kind = KINDS.find((each) => MediaRecorder.isTypeSupported(each) && (this.sees || each.startsWith("audio")));
    this.recorder = new MediaRecorder(this.stream, kind ? { mimeType: kind } : {});
    this.recorder.ondataavailable = (event) => event.data.size && parts.push(event.data);
    this.recorder.onstop = () => {
      const type = this.recorder.mimeType.split(";")[0];
      const suffix = type.endsWith("mp4") ? "mp4" : "webm";
      this.close();
      this.recorded(new File(parts, `recording.${suffix}`, { type }));
    };
    this.recorder.start(1000);
    const began = performance.now();
    this.ticking = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      this.elapsed.textContent = `Recording: ${clock(seconds)}`;
      if (seconds > this.longest - 1) this.recorder.stop();
    }, 250);
    this.start.hidden = true;
    this.stop.hidden = false;
    this.stop.focus();
  }
}
