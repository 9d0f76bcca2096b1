// Shows the articles that fit all controls: a select or a checked box by its name in data-*, a search by all text.
const controls = [...document.querySelectorAll(".filters [name]")];
const items = [...document.querySelectorAll("#items article")];
const texts = items.map((item) => item.textContent.toLowerCase());
function fits(item, text, control) {
  if (control.type === "search") return text.includes(control.value.toLowerCase());
  const off = control.type === "checkbox" ? !control.checked : !control.value;
  return off || item.dataset[control.name] === control.value;
}
function filter() {
  items.forEach((item, number) => {
    item.hidden = !controls.every((control) => fits(item, texts[number], control));
  });
  document.getElementById("count").textContent = `${items.filter((item) => !item.hidden).length} shown`;
}
for (const control of controls) control.addEventListener("input", filter);
filter();
