// What the page asks the server, and what the server declines.

export class Problem extends Error {}

const SILENT = "The server does not answer: see whether it still runs.";

async function problemOf(response) {
  try {
    return new Problem((await response.json()).error.message);
  } catch {
    return new Problem(`The server answered ${response.status}.`);
  }
}

export async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(SILENT);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export const askJson = async (address, options) => (await ask(address, options)).json();

// Send a recording. `progress` is called with the share that has been sent; `signal` ends it.
export function send(file, parameters, progress, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("file", file, file.name);
    // fetch reports no progress of what is sent
    const request = new XMLHttpRequest();
    request.open("POST", `/jobs?${new URLSearchParams(parameters)}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) resolve(request.response.id);
      else reject(new Problem(request.response?.error?.message ?? `The server answered ${request.status}.`));
    };
    request.onerror = () => reject(new Problem(SILENT));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

// Delete a job, also while the page is left; whether there is nothing of it any more.
export async function forget(id) {
  try {
    const response = await fetch(`/jobs/${id}`, { method: "DELETE", keepalive: true });
    return response.ok || response.status === 404;
  } catch {
    return false;
  }
}
