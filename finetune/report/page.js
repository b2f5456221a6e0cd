// Each chart shows, at the step that is nearest the pointer (or chosen with the arrow keys), the value of every line there.
const numbers = (text) => text.split(" ").map(Number);

function spelt(value) {
  if (value && Math.abs(value) < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
  return value.toLocaleString("en", Math.abs(value) >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 });
}

for (const figure of document.querySelectorAll("figure.lines")) {
  const plot = figure.querySelector(".plot");
  const [low, high] = numbers(figure.dataset.across);
  const lines = JSON.parse(figure.dataset.lines);
  const steps = [...new Set(lines.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  const cursor = document.createElement("i");
  const words = document.createElement("output");
  let chosen = steps.length - 1;

  function show(index) {
    chosen = Math.max(0, Math.min(index, steps.length - 1));
    const step = steps[chosen];
    const share = (step - low) / (high - low);
    const head = document.createElement("b");
    head.textContent = `step ${step.toLocaleString("en")}`;
    words.replaceChildren(head);
    for (const line of lines) {
      const point = line.points.find(([at]) => at === step);
      if (!point) continue;
      const row = document.createElement("div");
      const dot = document.createElement("em");
      dot.style.background = `var(--c${line.color})`;
      row.append(dot, `${line.name} ${spelt(point[1])}${figure.dataset.unit}`);
      words.append(row);
    }
    cursor.style.left = `${100 * share}%`;
    plot.append(cursor, words);
    // Beside the cursor, on the side that has more room.
    words.style.left = share < 0.5 ? `calc(${100 * share}% + 10px)` : "";
    words.style.right = share < 0.5 ? "" : `calc(${100 * (1 - share)}% + 10px)`;
  }

  function hide() {
    cursor.remove();
    words.remove();
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const wanted = low + ((event.clientX - box.left) / box.width) * (high - low);
    const distances = steps.map((step) => Math.abs(step - wanted));
    show(distances.indexOf(Math.min(...distances)));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => show(chosen));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(chosen + move);
  });
}

const pause = document.querySelector(".pause");
pause?.addEventListener("click", () => {
  const paused = document.body.classList.toggle("paused");
  pause.textContent = paused ? "Play the clips" : "Pause the clips";
});
