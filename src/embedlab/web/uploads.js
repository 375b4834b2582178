// Documents on their way in: sent with progress, read and embedded by a job, errors by file, and a way to stop.
import { ApiError, address, call, failure, headers, of } from "./api.js";
import { $, bytes, h, icon, number, plural } from "./dom.js";
import { report } from "./notice.js";

const POLL_MS = 400;
const ENDED = new Set(["done", "failed", "cancelled"]);

let info = { formats: [], limits: {} };
let done = () => {};
const entries = [];

export function start(facts, onDone) {
  info = facts;
  done = onDone;
}

// Jobs that were running before the page was loaded.
export async function resume(collection) {
  const { jobs } = await call("api/jobs", { params: { collection } });
  for (const job of jobs) {
    if (ENDED.has(job.state) || entries.some((entry) => entry.job?.id === job.id)) continue;
    const entry = add({ collection, job, refused: [] });
    follow(entry);
  }
}

// files: [{file, path}]
export async function send(collection, files) {
  const { limits, formats } = info;
  const refused = [];
  const fit = files.filter(({ file, path }) => {
    const ending = path.includes(".") ? path.slice(path.lastIndexOf(".")).toLowerCase() : "";
    const why = formats.length && !formats.includes(ending) ? `no reader for ${ending || "files without an ending"}: ${formats.join(" ")}`
      : limits.file_bytes && file.size > limits.file_bytes ? `${bytes(file.size)} is more than ${bytes(limits.file_bytes)}` : "";
    if (why) refused.push({ source: path, message: why });
    return !why;
  });
  const batches = cutIntoBatches(fit, limits);
  if (!batches.length) return void add({ collection, refused, state: "failed", message: "None of these files can be read." });
  for (const [at, batch] of batches.entries()) {
    const entry = add({ collection, files: batch, refused: at ? [] : refused, state: "sending", sent: 0, total: batch.reduce((sum, { file }) => sum + file.size, 0) });
    if (!(await post(entry))) return;
    follow(entry);
  }
}

function cutIntoBatches(files, limits) {
  const batches = [];
  let size = Infinity;
  for (const one of files) {
    const last = batches.at(-1);
    if (!last || last.length >= (limits.upload_files || 1000) || size + one.file.size > (limits.upload_bytes || 2 ** 28) * 0.95) {
      batches.push([one]);
      size = one.file.size;
    } else {
      last.push(one);
      size += one.file.size;
    }
  }
  return batches;
}

function post(entry) {
  const form = new FormData();
  for (const { file, path } of entry.files) form.append("files", file, path);
  const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
  entry.stop = () => request.abort();
  request.open("POST", address(`${of(entry.collection)}/documents`));
  for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
  request.upload.onprogress = (event) => ((entry.sent = event.loaded), event.lengthComputable && (entry.total = event.total), draw());
  return new Promise((resolve) => {
    request.onload = async () => {
      const body = () => JSON.parse(request.responseText);
      if (request.status === 202) {
        const answer = body();
        entry.job = answer.job;
        entry.refused.push(...answer.refused);
        return resolve(true);
      }
      const error = await failure(request.status, body, request.getResponseHeader("Retry-After"));
      if (error.status === 401) report(error);
      end(entry, "failed", error.message);
      resolve(false);
    };
    request.onerror = () => {
      report(new ApiError("The server does not answer."));
      end(entry, "failed", "The connection broke while sending. Nothing of these files was taken in.");
      resolve(false);
    };
    request.onabort = () => (end(entry, "cancelled", "Stopped while sending. Nothing of these files was taken in."), resolve(false));
    request.send(form);
  });
}

async function follow(entry) {
  entry.stop = () => call(`api/jobs/${entry.job.id}/cancel`, { method: "POST" }).then((job) => ((entry.job = job), draw()), report);
  let seen = -1;
  while (!ENDED.has(entry.job.state)) {
    draw();
    await new Promise((next) => setTimeout(next, POLL_MS));
    try {
      entry.job = await call(`api/jobs/${entry.job.id}`);
      if (entry.job.documents_done > seen + 200) (seen = entry.job.documents_done), done(entry.collection); // a long job shows as it grows
    } catch (error) {
      if (error.status === 404) return end(entry, "failed", "The server was restarted. What was committed is in; add the rest again.");
      if (error.status === 0) await new Promise((next) => setTimeout(next, 1500));
    }
  }
  end(entry, entry.job.state, entry.job.message);
}

function add(entry) {
  entries.push(entry);
  draw();
  return entry;
}

function end(entry, state, message) {
  Object.assign(entry, { state, message, ended: true });
  draw();
  done(entry.collection);
}

function draw() {
  $("tray").hidden = !entries.length;
  const focused = document.activeElement?.closest?.(".job button")?.closest(".job")?.dataset.at;
  $("tray").replaceChildren(...entries.map(box));
  if (focused !== undefined) ($("tray").querySelector(`[data-at="${focused}"] button`) ?? $("add")).focus({ preventScroll: true });
}

function box(entry, at) {
  const { job } = entry;
  const errors = [...entry.refused, ...(job?.errors ?? [])];
  const ended = entry.ended || entry.state === "failed";
  const progress = h("progress", { max: 1, "aria-label": job ? "Reading and embedding" : "Sending" });
  if (!job && entry.total) progress.value = entry.sent / entry.total;
  else if (job?.documents_total && job.state === "running") progress.value = job.documents_done / job.documents_total;
  const button = ended
    ? h("button", { type: "button", class: "tool", "aria-label": "Dismiss", onclick: () => (entries.splice(entries.indexOf(entry), 1), draw()) }, icon("close"))
    : h("button", { type: "button", class: "quiet", onclick: () => entry.stop() }, "Cancel");
  return h("div", { class: "job", dataset: { at: String(at) } },
    h("div", {}, h("strong", { role: "status" }, title(entry, errors)), button),
    !ended && progress,
    h("p", {}, detail(entry)),
    errors.length ? h("ul", { "aria-label": "Files that could not be read" }, errors.map((one) => h("li", {}, h("b", {}, one.source), one.message))) : null);
}

function title({ state, job, collection, ended }, errors) {
  if (!ended && !job) return state === "failed" ? "Nothing added" : `Sending to ${collection}`;
  if (!ended) return job.state === "queued" ? `Waiting to add to ${collection}` : `Adding to ${collection}`;
  if (state === "done") return errors.length ? `Added to ${collection}, with ${plural(errors.length, "error")}` : `Added to ${collection}`;
  return state === "cancelled" ? "Cancelled" : "Not added";
}

function detail({ job, message, sent, total, ended }) {
  if (ended && job && job.state !== "failed") return `${plural(job.documents_done, "document")}, ${plural(job.passages, "passage")}${job.state === "cancelled" ? " were in before it stopped" : ""}`;
  if (message) return message;
  if (!job) return `${bytes(sent)} of ${bytes(total)}`;
  const speed = job.passages_per_s ? `, ${number(Math.round(job.passages_per_s))} passages/s` : "";
  return job.documents_total ? `${number(job.documents_done)} of ${plural(job.documents_total, "document")}${speed}` : "Reading";
}

// What was dropped, folders included; hidden files are left out without a word.
export async function dropped(transfer) {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  const found = [];
  for (const root of roots) await collect(root, found);
  return found;
}

async function collect(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // hands out a part at a time
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}

export const picked = (input) => [...input.files]
  .map((file) => ({ file, path: file.webkitRelativePath || file.name }))
  .filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
