(() => {
  // Plots take their colours from the page's CSS variables, and take them again when the colour scheme changes.
  const source = document.getElementById("figures").textContent;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const coloured = source.replace(/var\((--[a-z]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    for (const [name, figure] of Object.entries(JSON.parse(coloured))) {
      Plotly.react("plot-" + name, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    }
    document.dispatchEvent(new Event("drawn"));
  }

  dark.addEventListener("change", draw);
  draw();
  // plotly measures text in an image of its own, which says nothing to a reader
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
})();
