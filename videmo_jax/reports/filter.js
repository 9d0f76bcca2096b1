const [task, wrong, text, count] = ["task", "wrong", "text", "count"].map((id) => document.getElementById(id));
const items = [...document.querySelectorAll("#items article")];
const texts = items.map((item) => item.textContent.toLowerCase());
function filter() {
  let shown = 0;
  items.forEach((item, number) => {
    const fits = (!task.value || item.dataset.task === task.value)
      && (!wrong.checked || item.dataset.verdict === "wrong")
      && texts[number].includes(text.value.toLowerCase());
    item.hidden = !fits;
    shown += fits;
  });
  count.textContent = `${shown} shown`;
}
for (const control of [task, wrong, text]) control.addEventListener("input", filter);
filter();
