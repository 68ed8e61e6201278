(() => {
  // Draws the figures of the page as SVG: the part of plotly's grammar that the page uses, which are lines, marks, bars and heat maps.
  // Colours are the page's CSS variables, so a plot follows the colour scheme by itself.
  const DASHES = { dash: [4, 2], dot: [1, 1.5], dashdot: [4, 1.5, 1, 1.5] };
  const CORNERS = { square: [4, 1.25, 45], diamond: [4, 1.3, 0], "triangle-up": [3, 1.3, 0], pentagon: [5, 1.1, 0] };
  const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  const ENTITIES = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'", "&#39;": "'", "&amp;": "&" };
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = FONT;
  const widthOf = (text) => pen.measureText(text).width;
  const plain = (text) => String(text).replace(/&(?:lt|gt|quot|#x27|#39|amp);/g, (entity) => ENTITIES[entity]);
  const minus = (text) => text.replace("-", "−");

  function add(parent, name, attributes = {}, style = {}, text = "") {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    Object.assign(node.style, style);
    if (text !== "") node.textContent = text;
    return parent.appendChild(node);
  }

  // An axis: where a value lies, from 0 to 1, and its ticks.
  function axisOf(options, values) {
    const kind = options.type ?? "linear";
    const names = new Map((options.categoryarray ?? (kind === "category" ? values : [])).map((name) => [String(name), 0]));
    [...names.keys()].forEach((name, place) => names.set(name, place));
    const number = {
      category: (value) => names.get(String(value)) ?? NaN,
      log: (value) => (value > 0 ? Math.log10(value) : NaN),
      linear: (value) => (value === null || value === undefined ? NaN : Number(value)),
    }[kind];
    let [low, high] = options.range ?? (kind === "category" ? [-0.5, names.size - 0.5] : [NaN, NaN]);
    if (Number.isNaN(low)) {
      const found = values.map(number).filter(Number.isFinite);
      [low, high] = found.length ? [Math.min(...found), Math.max(...found)] : [0, 1];
      const room = high > low ? 0.06 * (high - low) : kind === "log" ? 0.3 : 0.1 * Math.abs(high) || 1;
      [low, high] = [low - room, high + room];
    }
    if (options.autorange === "reversed") [low, high] = [high, low];
    const share = (at) => (at - low) / (high - low);
    return { kind, names: [...names.keys()], span: [low, high], share, at: (value) => share(number(value)), options };
  }

  function niceStep(least) {
    const size = 10 ** Math.floor(Math.log10(least));
    return size * [1, 2, 5, 10].find((times) => times * size >= least * 0.999);
  }

  // Pairs of a place, from 0 to 1, and its label; at most `most` of them.
  function ticksOf(axis, most) {
    const [low, high] = [...axis.span].sort((a, b) => a - b);
    const named = axis.options.tickvals
      ? axis.options.tickvals.map((at, place) => [at, axis.options.ticktext[place]])
      : axis.kind === "category" ? axis.names.map((name, place) => [place, name]) : null;
    if (named) {
      const every = Math.ceil(named.length / Math.max(1, most));
      return named.filter((_, place) => place % every === 0).map(([at, name]) => [axis.share(at), plain(name)]);
    }
    const ticks = [];
    if (axis.kind === "log") {
      const every = Math.ceil((high - low) / most);
      const times = high - low < 1.2 && most > 3 ? [1, 2, 3, 5] : high - low < 2 && most > 4 ? [1, 3] : [1];
      for (let power = Math.floor(low); power <= high; power += every)
        for (const factor of times) ticks.push([power + Math.log10(factor), factor * 10 ** power]);
      return ticks.filter(([at]) => at >= low && at <= high).map(([at, value]) => [axis.share(at), String(Number(value.toPrecision(2)))]);
    }
    const step = Math.max(axis.options.dtick ?? 0, niceStep((high - low) / Math.max(1, most)));
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step)
      ticks.push([axis.share(at), minus((Math.abs(at) < 1e-9 * step ? 0 : at).toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }))]);
    return ticks;
  }

  function shapeOf(name, x, y, r) {
    const turn = (count, radius, from = 0) => Array.from({ length: count }, (_, i) => {
      const angle = ((from - 90) * Math.PI) / 180 + (2 * Math.PI * i) / count;
      const far = Array.isArray(radius) ? radius[i % radius.length] : radius;
      return `${(x + far * Math.cos(angle)).toFixed(2)},${(y + far * Math.sin(angle)).toFixed(2)}`;
    });
    if (CORNERS[name]) return `M${turn(CORNERS[name][0], CORNERS[name][1] * r, CORNERS[name][2]).join("L")}Z`;
    if (name === "star") return `M${turn(10, [1.45 * r, 0.6 * r]).join("L")}Z`;
    if (name === "cross" || name === "x") {
      const [far, near] = [1.2 * r, 0.42 * r], turned = name === "x" ? Math.SQRT1_2 : 1, lean = name === "x" ? Math.SQRT1_2 : 0;
      const arms = [[-near, -far], [near, -far], [near, -near], [far, -near], [far, near], [near, near]];
      const corners = [...arms, ...arms.map(([a, b]) => [-a, -b])].map(([a, b]) => [x + turned * a - lean * b, y + lean * a + turned * b]);
      return `M${corners.map((corner) => corner.map((c) => c.toFixed(2))).join("L")}Z`;
    }
    return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
  }

  function mark(parent, symbol, x, y, trace, size) {
    const open = symbol.endsWith("-open"), { color, line } = trace.marker;
    const style = { fill: open ? "var(--page)" : color, stroke: color, strokeWidth: open ? (line?.width || 2) * 0.8 : 0 };
    add(parent, "path", { class: "point", d: shapeOf(symbol.replace("-open", ""), x, y, size / 2) }, style);
  }

  function stroke(trace) {
    const { color, dash, width = 2 } = trace.line;
    const dashes = (DASHES[dash] ?? []).map((part) => part * Math.max(width, 1.5));
    return { fill: "none", stroke: color, strokeWidth: width, strokeDasharray: dashes.join(" "), strokeLinejoin: "round" };
  }

  function hoverText(trace, values) {
    const write = (value, format) => {
      const [, sign, digits, short, kind] = /([+]?)\.(\d+)(~?)([fg])/.exec(format ?? "") ?? [];
      if (kind === undefined || typeof value !== "number") return plain(value ?? "–");
      const text = kind === "f" ? value.toFixed(digits) : short ? String(Number(value.toPrecision(digits))) : value.toPrecision(digits);
      return minus(sign && value >= 0 ? `+${text}` : text);
    };
    const filled = (text) => text.replace(/%\{(\w+)(?:\.\w+)?(?:\[(\d+)\])?(?::([^}]+))?\}/g, (_, key, place, format) => {
      const value = key === "fullData" ? trace.name : values[key];
      return write(place === undefined ? value : value[place], format);
    });
    const [, text, extra = ""] = /^(.*?)(?:<extra>(.*)<\/extra>)?$/s.exec(trace.hovertemplate ?? "%{x}, %{y}");
    return [filled(extra), filled(text.replaceAll("<br>", "\n"))].filter(Boolean).join("\n");
  }

  // What a pointer can point at, as {x, y, within, text}, is collected in `seen` while traces are drawn.
  const DRAW = {
    scatter(group, trace, X, Y, seen) {
      const points = trace.x.map((x, i) => [X(x), Y(trace.y[i])]);
      const known = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);
      const path = points.map((point, i) => (known(point) ? `${i && known(points[i - 1]) ? "L" : "M"}${point.map((c) => c.toFixed(2))}` : "")).join("");
      if (trace.fill === "toself") {
        add(group, "path", { class: "band", d: path && `${path}Z` }, { fill: trace.fillcolor, stroke: "none" });
        return;
      }
      if (trace.mode.includes("lines") && trace.line.width !== 0) add(group, "path", { class: "js-line", d: path }, stroke(trace));
      for (const [name, horizontal] of [["error_x", true], ["error_y", false]]) {
        const bars = trace[name];
        if (bars) points.forEach((point, i) => {
          const of = (sign, ends) => (horizontal ? X : Y)((horizontal ? trace.x : trace.y)[i] + sign * ends[i]);
          const [low, high] = [of(-1, bars.arrayminus ?? bars.array), of(1, bars.array)], [x, y] = point, cap = bars.width ?? 3;
          if (![low, high, x, y].every(Number.isFinite) || bars.array[i] === null || low === high) return;
          const d = horizontal
            ? `M${low},${y}H${high}M${low},${y - cap}v${2 * cap}M${high},${y - cap}v${2 * cap}`
            : `M${x},${low}V${high}M${x - cap},${low}h${2 * cap}M${x - cap},${high}h${2 * cap}`;
          add(group, "path", { class: "error", d }, { fill: "none", stroke: bars.color, strokeWidth: bars.thickness ?? 1.5 });
        });
      }
      const every = Math.ceil(points.length / (trace.marker?.maxdisplayed || points.length));
      const of = (value, i) => (Array.isArray(value) ? value[i] : value);
      points.forEach((point, i) => {
        if (!known(point)) return;
        const last = i === points.length - 1;
        if (trace.mode.includes("markers") && (i % every === 0 || last))
          mark(group, of(trace.marker.symbol, i), ...point, trace, of(trace.marker.size, i) ?? 8);
        const values = { x: trace.x[i], y: trace.y[i], customdata: trace.customdata?.[i] };
        if (trace.hoverinfo !== "skip") seen.push({ x: point[0], y: point[1], within: [30, 30], text: () => hoverText(trace, values) });
      });
    },
    bar(group, trace, X, Y, seen, stacked) {
      trace.x.forEach((length, i) => {
        const row = trace.y[i], from = stacked.get(row) ?? 0;
        stacked.set(row, from + length);
        const [x, to, top, foot] = [X(from), X(from + length), Y(row - 0.36), Y(row + 0.36)];
        const size = { x, y: Math.min(top, foot), width: Math.max(0, to - x), height: Math.abs(foot - top) };
        add(group, "rect", size, { fill: trace.marker.color, stroke: "var(--page)" });
        const within = [size.width / 2, size.height / 2];
        seen.push({ x: x + within[0], y: size.y + within[1], within, text: () => hoverText(trace, { x: length, y: row }) });
      });
    },
    heatmap(group, trace, X, Y, seen) {
      const [wide, high] = [Math.abs(X(trace.x[1] ?? NaN) - X(trace.x[0])), Math.abs(Y(trace.y[1] ?? NaN) - Y(trace.y[0]))];
      const [w, h] = [wide || 2 * X(trace.x[0]) - 2 * group.frame.left, high || 2 * Y(trace.y[0]) - 2 * group.frame.top];
      const { left, top, width, height } = group.frame;
      add(group, "rect", { x: left, y: top, width, height }, { fill: "var(--panel)" });
      const texts = trace.texttemplate && trace.text;
      const fits = texts && Math.max(...texts.flat().map((text) => widthOf(text))) < w - 4 && h > 13;
      trace.z.forEach((row, j) => row.forEach((value, i) => {
        const share = Math.min(1, (value - trace.zmin) / (trace.zmax - trace.zmin)), [x, y] = [X(trace.x[i]), Y(trace.y[j])];
        const size = { x: x - w / 2, y: y - h / 2, width: Math.max(0.5, w - trace.xgap), height: Math.max(0.5, h - trace.ygap) };
        if (share > 0) add(group, "rect", size, { fill: "var(--accent)", fillOpacity: share });
        if (fits && texts[j][i]) {
          const ink = share > 0.55 ? "var(--page)" : "var(--ink)";
          add(group, "text", { x: size.x + size.width / 2, y: size.y + size.height / 2 + 4, "text-anchor": "middle" }, { fill: ink }, texts[j][i]);
        }
        const values = { x: trace.x[i], y: trace.y[j], z: value, customdata: trace.customdata?.[j]?.[i] };
        seen.push({ x, y, within: [w / 2, h / 2], text: () => hoverText(trace, values) });
      }));
    },
  };

  // Every value of the traces along one axis, with the ends of their intervals.
  function valuesOf(traces, key) {
    const ends = ({ [key]: values, [`error_${key}`]: bars }) => !bars ? values : values.flatMap((value, i) => [
      value, value + (bars.array[i] ?? 0), value - ((bars.arrayminus ?? bars.array)[i] ?? 0),
    ]);
    return traces.flatMap((trace) => (trace.type === "bar" ? trace[key] : ends(trace)));
  }

  function draw(plot) {
    const { data, layout } = plot, svg = plot.querySelector("svg.main-svg");
    const [width, height] = [plot.clientWidth, Number(plot.dataset.height)], shown = data.filter((trace) => !trace.hidden);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const xAxis = axisOf(layout.xaxis, valuesOf(data, "x")), yAxis = axisOf(layout.yaxis, valuesOf(data, "y"));
    const [xTitle, yTitle] = [layout.xaxis.title.text, layout.yaxis.title.text].map(plain);
    const top = yTitle ? 30 : 10;
    // the labels of the one axis leave the room of the other
    const rowsOf = (room) => ticksOf(yAxis, room / (yAxis.kind === "category" ? 13 : layout.yaxis.tickvals ? 13 : 42));
    const left = Math.min(0.45 * width, 12 + Math.max(0, ...rowsOf(height - top - 44).map(([, label]) => widthOf(label))));
    const inner = width - left - 16;
    const named = xAxis.kind === "category" ? xAxis.names.map((name) => widthOf(plain(name))) : [];
    const turned = named.length > 0 && Math.max(...named) + 8 > inner / named.length;
    const foot = (turned ? Math.max(...named) + 12 : 22) + (xTitle ? 22 : 4);
    const frame = { left, top, width: inner, height: height - top - foot };
    const X = (value) => left + xAxis.at(value) * inner, Y = (value) => top + (1 - yAxis.at(value)) * frame.height;

    const axes = add(svg, "g", { class: "axes" }, { font: FONT, fill: "var(--muted)" });
    for (const [share, label] of rowsOf(frame.height)) {
      const y = top + (1 - share) * frame.height, tick = add(axes, "g", { class: "ytick" });
      if (layout.yaxis.showgrid !== false) add(tick, "line", { x1: left, x2: left + inner, y1: y, y2: y }, { stroke: "var(--line)" });
      add(tick, "text", { x: left - 8, y: y + 4, "text-anchor": "end" }, {}, label);
    }
    const room = turned ? 14 : xAxis.kind === "category" ? 1 : 48;
    for (const [share, label] of ticksOf(xAxis, inner / room)) {
      const [x, y] = [left + share * inner, top + frame.height], tick = add(axes, "g", { class: "xtick" });
      add(tick, "line", { x1: x, x2: x, y1: y, y2: y + 4 }, { stroke: "var(--muted)" });
      const place = turned ? { transform: `translate(${x + 4},${y + 8})rotate(-90)`, "text-anchor": "end" } : { x, y: y + 18, "text-anchor": "middle" };
      add(tick, "text", place, {}, label);
    }
    add(axes, "text", { class: "xtitle", x: left + inner / 2, y: height - 6, "text-anchor": "middle" }, {}, xTitle);
    add(axes, "text", { class: "ytitle", x: 2, y: 13 }, {}, yTitle);
    add(axes, "line", { x1: left, x2: left + inner, y1: top + frame.height, y2: top + frame.height }, { stroke: "var(--muted)" });

    plot.seen = [];
    const stacked = new Map(), layer = add(svg, "g", { class: "scatterlayer" }, { font: FONT });
    for (const { xref, yref, x0, x1, y0, y1, line } of layout.shapes ?? []) {
      const [a, b] = [x0, x1].map((x) => (xref === "paper" ? left + x * inner : X(x)));
      const [c, d] = [y0, y1].map((y) => (yref === "paper" ? top + (1 - y) * frame.height : Y(y)));
      add(layer, "path", { class: "shape", d: `M${a},${c}L${b},${d}` }, stroke({ line }));
    }
    for (const trace of shown) {
      const group = add(layer, "g", { opacity: trace.opacity ?? 1 });
      group.frame = frame;
      DRAW[trace.type](group, trace, X, Y, plot.seen, stacked);
    }
  }

  function legend(plot) {
    const box = Object.assign(document.createElement("div"), { className: "legend", ariaHidden: "true" });
    for (const trace of plot.data.filter((trace) => trace.showlegend !== false)) {
      const entry = Object.assign(document.createElement("span"), { className: "legendtext" });
      const swatch = add(entry, "svg", { width: 34, height: 12 }), group = add(swatch, "g", { opacity: trace.opacity ?? 1 });
      if (trace.type === "bar") add(group, "rect", { x: 8, y: 0, width: 18, height: 12 }, { fill: trace.marker.color });
      else {
        if (trace.mode.includes("lines")) add(group, "path", { d: "M1,6H33" }, stroke(trace));
        const symbols = trace.marker?.symbol ?? "circle";
        if (trace.mode.includes("markers")) mark(group, Array.isArray(symbols) ? symbols[0] : symbols, 17, 6, trace, 8);
      }
      entry.append(plain(trace.name));
      const of = plot.data.filter((other) => other.legendgroup && other.legendgroup === trace.legendgroup);
      const own = of.length ? of : [trace];
      const show = (isHidden) => {
        for (const other of plot.data) if (isHidden(other) !== undefined) other.hidden = isHidden(other);
        [...box.children].forEach((child) => child.classList.toggle("off", Boolean(child.trace.hidden)));
        draw(plot);
      };
      entry.trace = trace;
      entry.addEventListener("click", () => show((other) => (own.includes(other) ? !other.hidden : undefined)));
      entry.addEventListener("dblclick", () => {
        const alone = plot.data.every((other) => own.includes(other) || other.hidden || other.showlegend === false);
        show((other) => !alone && !own.includes(other));
      });
      box.append(entry);
    }
    plot.append(box);
  }

  function point(plot, tip, event) {
    const box = plot.querySelector("svg.main-svg").getBoundingClientRect(), [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const away = (entry) => Math.hypot(entry.x - x, entry.y - y);
    const near = plot.seen.filter((e) => Math.abs(e.x - x) <= e.within[0] && Math.abs(e.y - y) <= e.within[1]);
    const found = near.reduce((best, entry) => (best && away(best) <= away(entry) ? best : entry), null);
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = found.text();
    const above = box.top - plot.getBoundingClientRect().top + found.y - tip.offsetHeight - 10;
    tip.style.left = `${Math.max(0, Math.min(found.x + 10, plot.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, above)}px`;
  }

  for (const [name, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent))) {
    const plot = document.getElementById("plot-" + name);
    Object.assign(plot, figure, { draw: () => draw(plot) });
    // the plot's label and its table of numbers say it in words; what is drawn is for eyes
    if (figure.layout.showlegend) legend(plot);
    add(plot, "svg", { class: "main-svg", "aria-hidden": true });
    const tip = plot.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, (event) => point(plot, tip, event));
    plot.addEventListener("pointerleave", () => (tip.hidden = true));
    let last = plot.clientWidth;
    draw(plot);
    new ResizeObserver(() => {
      if (plot.clientWidth !== last) draw(plot);
      last = plot.clientWidth;
    }).observe(plot);
  }
  document.dispatchEvent(new Event("drawn"));
})();
