document.addEventListener("unpacked", ({ detail }) => {
  // Shows the point that is chosen; the plots mark it once they are drawn, and again whenever it changes.
  const data = JSON.parse(detail.chooser);
  const box = document.getElementById("chooser");
  const [policy, threshold, said] = ["policy", "threshold", "said"].map((name) => document.getElementById("chooser-" + name));
  const point = () => data.policies[policy.value][Number(threshold.value)];

  function fill(selector, value, text) {
    for (const place of box.querySelectorAll(selector)) {
      place.dataset.value = value;
      place.textContent = text;
    }
  }

  function show() {
    const chosen = point();
    const accuracy = (100 * chosen.accuracy).toFixed(2) + " %";
    const timesteps = chosen.mean_exit.toFixed(2);
    fill("[data-figure=accuracy]", chosen.accuracy, accuracy);
    fill("[data-figure=mean_exit]", chosen.mean_exit, timesteps);
    fill("[data-part=policy]", policy.value, policy.value);
    fill("[data-part=threshold]", chosen.threshold, chosen.threshold === "inf" ? 'float("inf")' : chosen.threshold);
    let sentence = `${policy.value}, threshold ${chosen.threshold}: ${accuracy} right after ${timesteps} timesteps on average`;
    if (data.unit) {
      const energy = (chosen.energy_pj / data.scale).toPrecision(4);
      fill("[data-figure=energy_pj]", chosen.energy_pj, energy);
      sentence += `, an estimated ${energy} ${data.unit} per sample`;
    }
    said.textContent = sentence + ".";
    threshold.setAttribute("aria-valuetext", chosen.threshold);
    box.querySelectorAll("tr[data-row]").forEach((row, t) => {
      const share = row.querySelector("[data-metric=leaving]");
      share.dataset.value = chosen.leaving[t];
      share.textContent = (100 * chosen.leaving[t]).toFixed(1) + " %";
      row.querySelector(".bar").style.width = 100 * chosen.leaving[t] + "%";
    });
    const images = [...box.querySelectorAll("img")].sort((a, b) => a.dataset.place - b.dataset.place);
    images.forEach((image) => box.querySelector(`tr[data-row="${chosen.exits[image.dataset.place]}"] .examples`).append(image));
    mark();
  }

  function mark() {
    const chosen = point();
    for (const [name, x] of [["latency", chosen.mean_exit], ["energy", chosen.energy_pj / data.scale]]) {
      const plot = document.getElementById("plot-deployment_" + name);
      if (plot?.data) Plotly.restyle(plot, { x: [[x]], y: [[100 * chosen.accuracy]] }, [plot.data.length - 1]);
    }
  }

  function choose(index) {
    threshold.max = data.policies[policy.value].length - 1;
    threshold.value = index;
    show();
  }

  for (const image of box.querySelectorAll("img")) image.src = document.getElementById("sample-" + image.dataset.sample).src;

  // another policy goes on at the latency that was looked at
  let latency = 0;
  policy.addEventListener("change", () => {
    const away = data.policies[policy.value].map((entry) => Math.abs(entry.mean_exit - latency));
    choose(away.indexOf(Math.min(...away)));
  });
  threshold.addEventListener("input", () => {
    latency = point().mean_exit;
    show();
  });
  document.addEventListener("drawn", mark);

  policy.value = data.start.policy;
  choose(data.start.index);
  latency = point().mean_exit;
  box.hidden = false;
});
