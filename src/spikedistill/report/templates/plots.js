(() => {
  // Unpacks plotly and the data of the page, which are compressed, and draws the plots. Text and tables need none of it.
  // base85 as Python writes it, but for "<", which would look like markup and is a comma here
  const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
  const VALUES = new Uint8Array(128);
  [...DIGITS].forEach((digit, value) => (VALUES[digit.charCodeAt(0)] = value));

  async function unpacked(script) {
    const text = script.textContent, bytes = new DataView(new ArrayBuffer((text.length / 5) * 4));
    for (let place = 0; place < text.length; place += 5) {
      let value = 0;
      for (let i = place; i < place + 5; i++) value = value * 85 + VALUES[text.charCodeAt(i)];
      bytes.setUint32((place / 5) * 4, value);
    }
    const packed = new Blob([new Uint8Array(bytes.buffer, 0, Number(script.dataset.bytes))]).stream();
    return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // Plots take their colours from the page's CSS variables, and take them again when the colour scheme changes.
  function draw(source) {
    const style = getComputedStyle(document.documentElement);
    const coloured = source.replace(/var\((--[a-z]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    for (const [name, figure] of Object.entries(JSON.parse(coloured))) {
      Plotly.react("plot-" + name, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    }
    document.dispatchEvent(new Event("drawn"));
  }

  async function begin() {
    const scripts = [...document.querySelectorAll("script[data-bytes]")];
    const texts = await Promise.all(scripts.map(unpacked)), detail = Object.fromEntries(scripts.map(({ id }, i) => [id, texts[i]]));
    const { plotly: library, figures: source } = detail;
    document.dispatchEvent(new CustomEvent("unpacked", { detail }));
    document.head.append(Object.assign(document.createElement("script"), { textContent: library }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(source));
    draw(source);
    // plotly measures text in an image of its own, which says nothing to a reader
    document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
    document.documentElement.dataset.drawn = "yes";
  }

  const cannot = (why) => {
    const line = document.getElementById("no-plots");
    line.textContent = `The plots are not shown, because ${why}. Every number is in the tables as well.`;
    line.hidden = false;
  };
  if (!("DecompressionStream" in window)) cannot("this browser has no DecompressionStream; Chrome 80, Firefox 113 and Safari 16.4 have it");
  else begin().catch((error) => cannot(`they could not be unpacked (${error.message})`));
})();
