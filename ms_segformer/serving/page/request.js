// Asks the server: progress of the upload, cancellation, errors as problems, and another try where the server is busy.

const LASTING = new Set(
  ('media-type body-too-large not-an-image too-many-pixels not-acceptable no-file unreadable-file ' +
    'too-large-to-draw').split(' '),
);
const AGAIN = new Set(['busy', 'starting']);
const PATIENCE = 15 * 60; // seconds for which a busy server is asked again

// What went wrong. `kind` is the last word of the server's problem type, or one of the page's own.
export class Problem extends Error {
  constructor(kind, { title, detail, status, retryAfter, ...values } = {}) {
    super(detail ?? title ?? kind);
    Object.assign(this, { kind, title, detail, status, retryAfter, values: { status, ...values } });
  }

  // Whether the same request may work later.
  get passing() {
    return !LASTING.has(this.kind);
  }
}

export function isAbort(error) {
  return error instanceof DOMException && error.name === 'AbortError';
}

// A request, repeated while the server is busy or starting.
//
// path: relative to the page.
// options: method, body, type (of the body), accept, signal (an AbortSignal), report(state, value), which is called
//   with 'uploading' and the share sent, 'waiting', or 'busy' or 'starting' and the seconds to the next try.
// Returns a Blob. Throws Problem, or AbortError when the signal says so.
export async function ask(path, { report = () => {}, ...options }) {
  const start = performance.now();
  for (;;) {
    try {
      return await askOnce(path, { ...options, report });
    } catch (error) {
      if (!(error instanceof Problem) || !AGAIN.has(error.kind)) throw error;
      if (performance.now() - start > PATIENCE * 1000) throw error;
      for (let seconds = error.retryAfter; seconds > 0; seconds--) {
        report(error.kind, seconds);
        await pause(1000, options.signal);
      }
    }
  }
}

function askOnce(path, { method = 'GET', body, type, accept, signal, report }) {
  return new Promise((resolve, reject) => {
    const stopped = () => reject(new DOMException('canceled', 'AbortError'));
    if (signal?.aborted) return stopped();
    const request = new XMLHttpRequest();
    let onItsWay = false; // a part of the body, but not all of it
    request.open(method, path);
    request.responseType = 'blob';
    request.setRequestHeader('Accept', accept);
    if (body) {
      request.setRequestHeader('Content-Type', type);
      request.upload.onprogress = ({ loaded, total }) => {
        onItsWay = loaded > 0 && loaded < total;
        report('uploading', total ? loaded / total : 0);
      };
      request.upload.onload = () => {
        onItsWay = false;
        report('waiting');
      };
      report('uploading', 0);
    }
    const stop = () => request.abort();
    signal?.addEventListener('abort', stop);
    request.onloadend = () => signal?.removeEventListener('abort', stop);
    request.onabort = stopped;
    request.onerror = () => reject(new Problem(onItsWay ? 'broken-off' : 'unreachable'));
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else problemOf(request).then(reject, reject);
    };
    request.send(body);
  });
}

async function problemOf(request) {
  const after = Number(request.getResponseHeader('Retry-After') ?? NaN);
  const about = { status: request.status, retryAfter: after > 0 ? Math.min(Math.ceil(after), 120) : 2 };
  try {
    const { type, title, detail } = JSON.parse(await request.response.text());
    return new Problem(String(type).split(':').pop(), { ...about, title, detail });
  } catch {
    return new Problem('status', about); // from something between the page and the server
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException('canceled', 'AbortError'));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
