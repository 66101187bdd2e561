"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const plot = document.getElementById("curves");
  const state = { rate: page.rate, definition: page.definition, intervals: true };
  const off = { run: new Set(), detector: new Set() };

  // On a touch screen a finger scrolls the page, so only a mouse zooms
  const coarse = matchMedia("(pointer: coarse)").matches;
  const { data, layout } = page.figure;
  layout.dragmode = coarse ? false : "zoom";
  if (innerWidth <= 760) {
    layout.font.size = 11;
    layout.yaxis.title.text = "";
  }
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: coarse ? false : "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: "linksim" },
  };

  const isOn = (meta) => !off.run.has(String(meta.run)) && !off.detector.has(meta.detector);

  function drawCurves(axesToo) {
    const x = data.map((t) => t.meta.definitions[state.definition] || null);
    const style = {
      visible: data.map((t, i) => t.meta.rate === state.rate && x[i] !== null && isOn(t.meta)),
      "error_y.visible": data.map((t) => "error_y" in t && state.intervals),
    };
    const axes = {};
    if (axesToo) {
      style.x = x;
      axes["xaxis.title.text"] = page.definitions[state.definition].html;
      axes["xaxis.autorange"] = true;
      // New x values would reset the range of both axes
      axes["yaxis.autorange"] = false;
      axes["yaxis.range"] = page.rates[state.rate].range.slice();
      if (innerWidth > 760) axes["yaxis.title.text"] = page.rates[state.rate].label;
    }
    return Plotly.update(plot, style, axes);
  }

  function fill(td, cell) {
    td.firstChild.textContent = cell.text;
    td.querySelector("small").textContent = cell.detail;
    if (cell.value === null) delete td.dataset.value;
    else td.dataset.value = cell.value;
  }

  function fillTables() {
    const absent = [];
    all(".run").forEach((section) => {
      const run = page.runs[section.dataset.run];
      section.hidden = off.run.has(section.dataset.run);
      const known = state.definition in run.axes;
      if (!known) absent.push(run.label);
      const definition = known ? state.definition : Object.keys(run.axes)[0];
      const points = section.querySelector("[data-points]");
      if (!points) return;
      all("option", points).forEach((o) => {
        o.textContent = `${run.axes[definition][o.value]} dB${known ? "" : ` (${definition})`}`;
      });
      all("td", section).forEach((td) => {
        const { cell, detector } = td.dataset;
        if (cell === "crossing") fill(td, run.crossings[definition][detector]);
        if (["bler", "throughput", "ms"].includes(cell)) fill(td, run.points[points.value][detector][cell]);
      });
      all("tbody tr", section).forEach((tr) => {
        tr.hidden = off.detector.has(tr.dataset.detector);
      });
    });
    document.getElementById("definition-source").textContent =
      page.definitions[state.definition].source;
    document.getElementById("absent").textContent = absent.length
      ? `Not shown, because this SNR is not known for them: ${absent.join(", ")}.`
      : "";
  }

  function press(chip, on) {
    chip.setAttribute("aria-pressed", on);
    off[chip.dataset.kind][on ? "delete" : "add"](chip.dataset.name);
  }

  all("[data-rate]").forEach((button) => button.addEventListener("click", () => {
    state.rate = button.dataset.rate;
    all("[data-rate]").forEach((b) => b.setAttribute("aria-pressed", b === button));
    drawCurves(true);
  }));
  document.getElementById("definition").addEventListener("change", (event) => {
    state.definition = event.target.value;
    drawCurves(true);
    fillTables();
  });
  document.getElementById("intervals").addEventListener("change", (event) => {
    state.intervals = event.target.checked;
    drawCurves(false);
  });
  all(".chip").forEach((chip) => chip.addEventListener("click", () => {
    press(chip, chip.getAttribute("aria-pressed") === "false");
    drawCurves(false);
    fillTables();
  }));
  all("[data-all]").forEach((button) => button.addEventListener("click", () => {
    all('.chip[data-kind="detector"]').forEach((c) => press(c, button.dataset.all === "true"));
    drawCurves(false);
    fillTables();
  }));
  all("[data-points]").forEach((select) => select.addEventListener("change", fillTables));

  // Browsers keep the choices when the page is reloaded
  state.definition = document.getElementById("definition").value;
  state.intervals = document.getElementById("intervals").checked;
  Plotly.newPlot(plot, data, layout, config).then(() => drawCurves(true));
  fillTables();
})();
