"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const chooseTrack = document.getElementById("track");
  const chooseAxis = document.getElementById("axis");
  const families = all(".chip").map((chip) => chip.dataset.family);
  const off = new Set();
  const LEFT = 52, RIGHT = 16, TOP = 14, BOTTOM = 44, HEIGHT = 380;

  function add(svg, kind, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    if (text !== undefined) node.textContent = text;
    svg.append(node);
    return node;
  }

  // Powers of ten, and where these are few also some times them
  function logTicks(low, high) {
    const ticks = [];
    const decades = Math.log10(high / low);
    const steps = decades > 2.5 ? [1] : decades > 0.7 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 3, 4, 5, 7];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      steps.forEach((s) => ticks.push(s * 10 ** e));
    }
    return ticks.filter((t) => t >= low && t <= high);
  }

  function linearTicks(low, high) {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough);
    const ticks = [];
    for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(t);
    return ticks;
  }

  function draw(section) {
    const svg = section.querySelector(".front");
    const axis = chooseAxis.value;
    svg.replaceChildren();
    const points = page.tracks[section.dataset.track]
      .filter((p) => p[axis] > 0 && !off.has(p.family));
    const width = svg.clientWidth || 800;
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    if (!points.length) {
      add(svg, "text", { x: 20, y: 40, class: "soft" }, "No receiver has this cost.");
      return;
    }
    const costs = points.map((p) => p[axis]);
    const snr = points.flatMap((p) => [p.snr_db, p.low ?? p.snr_db, p.high ?? p.snr_db]);
    const [least, most] = [Math.min(...costs) / 1.25, Math.max(...costs) * 1.25];
    const margin = 0.05 * (Math.max(...snr) - Math.min(...snr)) + 0.1;
    const [low, high] = [Math.min(...snr) - margin, Math.max(...snr) + margin];
    const x = (c) => LEFT + (width - LEFT - RIGHT) * Math.log(c / least) / Math.log(most / least);
    const y = (s) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (s - low) / (high - low);

    logTicks(least, most).forEach((t) => {
      add(svg, "line", { x1: x(t), x2: x(t), y1: TOP, y2: HEIGHT - BOTTOM });
      add(svg, "text", { x: x(t), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle", class: "soft" },
        t.toLocaleString("en", { maximumSignificantDigits: 3 }));
    });
    linearTicks(low, high).forEach((t) => {
      add(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: y(t), y2: y(t) });
      add(svg, "text", { x: LEFT - 6, y: y(t) + 4, "text-anchor": "end", class: "soft" },
        Number(t.toFixed(6)));
    });
    add(svg, "text", { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" },
      page.axes[axis]);
    add(svg, "text", {
      x: 0, y: 0, "text-anchor": "middle", transform: `translate(13 ${HEIGHT / 2 - 20}) rotate(-90)`,
    }, `SNR in dB at BLER ${page.target}`);

    // A step for each receiver that needs less SNR than all that cost less
    let path = "", best = Infinity;
    [...points].sort((a, b) => a[axis] - b[axis] || a.snr_db - b.snr_db).forEach((p) => {
      p.front = p.snr_db < best;
      if (!p.front) return;
      path += path ? `H${x(p[axis])}V${y(p.snr_db)}` : `M${x(p[axis])} ${y(p.snr_db)}`;
      best = p.snr_db;
    });
    add(svg, "path", { d: `${path}H${width - RIGHT}`, class: "steps" });

    const taken = points.map((p) => [x(p[axis]) - 5, y(p.snr_db) - 5, 10, 10]);
    const free = (box) => box[0] > LEFT && box[0] + box[2] < width && box[1] > 0
      && box[1] + box[3] < HEIGHT - BOTTOM + 6
      && taken.every((t) => box[0] > t[0] + t[2] || t[0] > box[0] + box[2]
        || box[1] > t[1] + t[3] || t[1] > box[1] + box[3]);
    // Those of the front choose first where their labels go
    [...points].sort((a, b) => b.front - a.front).forEach((p) => {
      const group = add(svg, "g", { class: `family-${families.indexOf(p.family)}` });
      const [cx, cy] = [x(p[axis]), y(p.snr_db)];
      if (p.low !== null) {
        add(group, "line", { x1: cx, x2: cx, y1: y(p.high), y2: y(p.low), class: "bar" });
      }
      const dot = add(group, "circle", { cx, cy, r: p.front ? 5 : 3.5 });
      add(dot, "title", {}, `${p.name}: ${p.snr_db.toFixed(2)} dB`);
      const wide = 6.6 * p.name.length;
      const places = [[7, -4], [7, 12], [-7 - wide, -4], [-7 - wide, 12], [-wide / 2, -9], [-wide / 2, 19]];
      const place = places.find(([dx, dy]) => free([cx + dx, cy + dy - 10, wide, 12]));
      if (!place) return; // the dot has its name, too
      taken.push([cx + place[0], cy + place[1] - 10, wide, 12]);
      add(svg, "text", {
        x: cx + place[0], y: cy + place[1], "font-weight": p.front ? 600 : 400,
      }, p.name);
    });
  }

  function show() {
    all(".track").forEach((section) => {
      section.hidden = chooseTrack.value !== "" && section.dataset.track !== chooseTrack.value;
      all("tbody tr", section).forEach((tr) => { tr.hidden = off.has(tr.dataset.family); });
      if (!section.hidden) draw(section);
    });
  }

  all(".chip").forEach((chip) => chip.addEventListener("click", () => {
    const on = chip.getAttribute("aria-pressed") === "false";
    chip.setAttribute("aria-pressed", on);
    off[on ? "delete" : "add"](chip.dataset.family);
    show();
  }));
  chooseTrack.addEventListener("change", show);
  chooseAxis.addEventListener("change", show);
  addEventListener("resize", show);
  show();
})();
