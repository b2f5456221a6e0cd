const cards = [...document.querySelectorAll("article")];
const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("nav input[type=search]");
const more = document.querySelector(".more");
const FIRST = 12; // cards that are shown, and as many as `more` shows four times
let move = "";
let most = FIRST;

function show() {
  const wanted = search.value.toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = (!move || card.dataset.moves.split(" ").includes(move)) && card.dataset.text.includes(wanted);
    shown += fits;
    card.hidden = !fits || shown > most;
  }
  more.hidden = shown <= most;
  more.textContent = `${Math.min(4 * FIRST, shown - most)} more of ${shown}`;
  document.querySelector(".nothing").hidden = shown > 0;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    move = button.dataset.move;
    most = FIRST;
    for (const other of buttons) other.classList.toggle("on", other === button);
    show();
  });
}
search.addEventListener("input", show);
more.addEventListener("click", () => {
  most += 4 * FIRST;
  show();
});
show();
document.querySelector("nav input[type=checkbox]").addEventListener("change", (event) => {
  document.body.classList.toggle("paused", !event.target.checked);
});
