const cards = [...document.querySelectorAll("article")];
const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("nav input[type=search]");
let move = "";

function show() {
  const wanted = search.value.toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = (!move || card.dataset.moves.split(" ").includes(move)) && card.dataset.text.includes(wanted);
    card.hidden = !fits;
    shown += fits;
  }
  document.querySelector(".nothing").hidden = shown > 0;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    move = button.dataset.move;
    for (const other of buttons) other.classList.toggle("on", other === button);
    show();
  });
}
search.addEventListener("input", show);
document.querySelector("nav input[type=checkbox]").addEventListener("change", (event) => {
  document.body.classList.toggle("paused", !event.target.checked);
});
