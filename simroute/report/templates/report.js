"use strict";
// Draws the figures in the page's colours, follows the system between light and dark, hides policies on request.
const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const hidden = new Set();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function themed(layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line") };
  return {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("muted"), size: 12 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", y: -0.15, traceorder: "normal", font: { color: colour("ink") } },
    xaxis: { ...layout.xaxis, ...axis, fixedrange: true },
    yaxis: { ...layout.yaxis, ...axis, fixedrange: true },
  };
}

function draw(chart) {
  const figure = figures[chart.dataset.figure];
  const data = figure.data.map((trace) => ({ ...trace, visible: hidden.has(trace.name) ? false : true }));
  Plotly.react(chart, data, themed(figure.layout), { responsive: true, displayModeBar: false });
}

function drawAll() {
  charts.forEach(draw);
}

document.querySelectorAll(".legend button").forEach((button) => {
  button.addEventListener("click", () => {
    const policy = button.dataset.policy;
    if (!hidden.delete(policy)) hidden.add(policy);
    document.querySelectorAll(".legend button").forEach((each) => {
      each.setAttribute("aria-pressed", String(!hidden.has(each.dataset.policy)));
    });
    drawAll();
  });
});

// On paper: charts shrink to the width there, and tables that are folded up are shown.
const folded = [...document.querySelectorAll("details:not([open])")].filter((each) => each.querySelector("table"));
let unfolded = [];

addEventListener("beforeprint", () => {
  unfolded = folded.filter((each) => !each.open);
  unfolded.forEach((each) => { each.open = true; });
  document.querySelectorAll(".main-svg").forEach((svg) => {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  });
});
addEventListener("afterprint", () => {
  unfolded.forEach((each) => { each.open = false; });
  document.querySelectorAll(".main-svg").forEach((svg) => svg.removeAttribute("viewBox"));
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
