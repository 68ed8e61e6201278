"use strict";
// Runs an exported spiking network timestep by timestep, and stops when its score reaches the threshold.

const { description, onnx, examples } = window.MODEL;
const [channels, height, width] = [description.input.channels, ...description.input.size];

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function start() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = bytes(window.RUNTIME.wasm).buffer;
  const script = new Blob([bytes(window.RUNTIME.script)], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(script) };
  return ort.InferenceSession.create(bytes(onnx), { executionProviders: ["wasm"] });
}

function shapeOf(start) {
  return Array.isArray(start) ? [start.length, ...shapeOf(start[0])] : [];
}

// An array of a shape, filled with nested lists that broadcast over its last axes.
function spread(start, shape) {
  const own = shapeOf(start);
  const values = own.length ? start.flat(Infinity) : [start];
  const sizes = [...Array(shape.length - own.length).fill(1), ...own];
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i++) {
    let [rest, place, stride] = [i, 0, 1];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (sizes[axis] > 1) place += (rest % shape[axis]) * stride;
      stride *= sizes[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    data[i] = values[place];
  }
  return data;
}

function initialState() {
  return Object.fromEntries(
    description.state.map(({ input, shape, dtype, start }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      if (dtype === "int64") return [input, new ort.Tensor("int64", new BigInt64Array(size), [1, ...shape])];
      return [input, new ort.Tensor("float32", spread(start, shape), [1, ...shape])];
    }),
  );
}

function softmax(values) {
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

function scoreOf(policy, total, steps, same) {
  const p = softmax(total.map((value) => value / steps));
  if (policy === "stability") return same;
  if (policy === "sum_confidence") return Math.max(...softmax(total));
  if (policy === "confidence") return Math.max(...p);
  if (policy === "margin" || policy === "gap") {
    const sorted = [...(policy === "gap" ? total : p)].sort((a, b) => b - a);
    return sorted[0] - sorted[1];
  }
  const entropy = -p.reduce((sum, value) => sum + (value > 0 ? value * Math.log(value) : 0), 0);
  return Math.min(Math.max(1 - entropy / Math.log(p.length), 0), 1);
}

// Every timestep of one image: sums of logits, scores and milliseconds, up to the first that reaches the threshold.
async function classify(session, pixels, threshold, all = false) {
  const input = new ort.Tensor("float32", pixels, [1, channels, height, width]);
  let state = initialState();
  let total = null;
  let [same, answer] = [0, -1];
  const steps = [];
  for (let t = 1; t <= description.timesteps; t++) {
    const begun = performance.now();
    const out = await session.run({ input, ...state });
    const ms = performance.now() - begun;
    state = Object.fromEntries(description.state.map(({ input: name, output }) => [name, out[output]]));
    const logits = Array.from(out.logits.data);
    total = total ? total.map((value, c) => value + logits[c]) : logits;
    const top = total.indexOf(Math.max(...total));
    same = top === answer ? same + 1 : 1;
    answer = top;
    const score = scoreOf(description.exit.policy, total, t, same);
    steps.push({ t, answer, score, ms, probabilities: softmax(total.map((value) => value / t)) });
    if (!all && score >= threshold) break;
  }
  return steps;
}

const by = (id) => document.getElementById(id);
const canvas = by("input");
const pen = canvas.getContext("2d", { willReadFrequently: true });
let steps = [];
let exact = null; // the pixels of an example, which the canvas only shows

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  exact = null;
}

// Pixels as training prepared them: covered and cut, fitted, stretched, or the middle of a larger one.
function place(image, w, h) {
  const { resize = "crop", fill = [] } = description.input;
  const target = document.createElement("canvas");
  [target.width, target.height] = [width, height];
  const to = target.getContext("2d");
  const shade = fill.map((value) => Math.round(255 * value));
  to.fillStyle = shade.length ? `rgb(${shade[0]}, ${shade[1] ?? shade[0]}, ${shade[2] ?? shade[0]})` : "#000";
  to.fillRect(0, 0, width, height);
  to.imageSmoothingQuality = "high";
  let [sx, sy] = [width / w, height / h];
  if (resize === "crop") sx = sy = Math.max(sx, sy);
  if (resize === "centre") sx = sy = (Math.max(sx, sy) * 8) / 7;
  if (resize === "pad") sx = sy = Math.min(sx, sy);
  to.drawImage(image, (width - w * sx) / 2, (height - h * sy) / 2, w * sx, h * sy);
  return to.getImageData(0, 0, width, height).data;
}

function pixelsOf(rgba) {
  const found = new Float32Array(channels * height * width);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 1) found[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b) / 255;
    else [r, g, b].forEach((value, c) => (found[c * area + i] = value / 255));
  }
  return found;
}

function show(pixels) {
  const image = new ImageData(width, height);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * pixels[(channels === 1 ? 0 : c) * area + i]);
    image.data[4 * i + 3] = 255;
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

function tell() {
  const threshold = Number(by("threshold").value);
  by("threshold-value").value = threshold.toFixed(3);
  if (!steps.length) return;
  const reached = steps.findIndex(({ score }) => score >= threshold);
  const last = reached < 0 ? steps.length - 1 : reached;
  const { answer, probabilities } = steps[last];
  const ms = steps.slice(0, last + 1).reduce((sum, step) => sum + step.ms, 0);
  const name = description.classes[answer];
  const count = `${last + 1} of ${description.timesteps} timestep${description.timesteps === 1 ? "" : "s"}`;
  by("answer").textContent = `${name}, confidence ${(100 * probabilities[answer]).toFixed(1)} %, after ${count} and ${ms.toFixed(1)} ms`;
  by("steps").replaceChildren(
    ...steps.map(({ t, answer: own, score }, index) => {
      const item = document.createElement("li");
      item.textContent = `${t}: ${description.classes[own]} ${score.toFixed(3)}`;
      item.className = index === last ? "stopped" : index > last ? "spared" : "";
      if (index > last) item.setAttribute("aria-label", `timestep ${t}, spared`);
      return item;
    }),
  );
  const order = probabilities.map((_, c) => c).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 10);
  by("bars").replaceChildren(
    ...order.map((c, place) => {
      const row = document.createElement("tr");
      row.className = place ? "" : "first";
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = description.classes[c];
      const share = document.createElement("td");
      share.textContent = (100 * probabilities[c]).toFixed(1);
      const bar = document.createElement("div");
      bar.className = "bar";
      bar.style.width = `${100 * probabilities[c]}%`;
      const cell = document.createElement("td");
      cell.style.width = "65%";
      cell.append(bar);
      row.append(head, share, cell);
      return row;
    }),
  );
}

let running = null;
async function look(session) {
  const pixels = exact ?? pixelsOf(place(canvas, canvas.width, canvas.height));
  const own = (running = {});
  const found = await classify(session, pixels, Infinity, true);
  if (own !== running) return;
  steps = found;
  tell();
}

function bind(session) {
  const again = () => look(session);
  let drawing = false;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (exact) clear();
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    [pen.strokeStyle, pen.lineWidth, pen.lineCap, pen.lineJoin] = ["#fff", canvas.width / 11, "round", "round"];
    pen.beginPath();
    pen.moveTo(...at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    pen.lineTo(...at(event));
    pen.stroke();
  });
  canvas.addEventListener("pointerup", () => {
    drawing = false;
    again();
  });
  by("clear").addEventListener("click", () => {
    clear();
    steps = [];
    by("answer").textContent = "";
    by("steps").replaceChildren();
    by("bars").replaceChildren();
  });
  const take = async (file) => {
    by("problem").textContent = "";
    try {
      const image = await createImageBitmap(file, { imageOrientation: "from-image" });
      exact = pixelsOf(place(image, image.width, image.height));
      pen.imageSmoothingEnabled = false;
      pen.drawImage(show(exact), 0, 0, canvas.width, canvas.height);
      again();
    } catch {
      by("problem").textContent = `${file.name} is no image that this browser reads.`;
    }
  };
  by("file").addEventListener("change", (event) => event.target.files.length && take(event.target.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    canvas.addEventListener(name, (event) => {
      event.preventDefault();
      canvas.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  }
  by("examples").replaceChildren(
    ...examples.map(({ pixels, label }, number) => {
      const values = Float32Array.from(bytes(pixels), (value) => value / 255);
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Test image ${number + 1}, ${label}`);
      button.append(show(values));
      button.addEventListener("click", () => {
        exact = values;
        pen.imageSmoothingEnabled = false;
        pen.drawImage(show(values), 0, 0, canvas.width, canvas.height);
        again();
      });
      return button;
    }),
  );
  by("threshold").addEventListener("input", tell);
}

async function main() {
  const { policy, threshold } = description.exit;
  const slider = by("threshold");
  if (policy === "stability") [slider.min, slider.max, slider.step] = ["1", String(description.timesteps), "1"];
  if (policy === "gap") [slider.max, slider.step] = [String(2 * (threshold || 10)), "any"];
  slider.value = String(threshold ?? slider.max);
  by("policy").textContent = policy.replace("_", " ");
  by("about").textContent =
    `The network has ${description.classes.length} classes and runs for at most ${description.timesteps} timesteps, here in your browser: ` +
    "no image leaves it. It stops after the first timestep whose score reaches the threshold. Move the threshold to see what that saves.";
  clear();
  try {
    const session = await start();
    bind(session);
    tell();
    window.network = { classify: (pixels, limit) => classify(session, Float32Array.from(pixels), limit) };
    document.body.dataset.ready = "yes";
    by("examples").firstElementChild?.click();
  } catch (error) {
    by("problem").textContent = `The network cannot run in this browser: ${error.message}`;
    document.body.dataset.ready = "no";
  }
}

main();
