// Two models beside each other, from the numbers that stand in the page.
"use strict";
(() => {
  const numbers = JSON.parse(document.getElementById("numbers").textContent);
  const place = document.getElementById("compared");
  const sides = ["A", "B"].map((name) => document.getElementById(`model-${name}`));
  const facts = (page) => document.getElementById("facts").content.querySelector(`dl[data-page="${CSS.escape(page)}"]`);
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const row = (head, cells, name = "td") => {
    const made = element("tr");
    const first = element("th", head);
    first.scope = "row";
    made.append(first, ...cells.map((cell) => (cell instanceof Node ? cell : element(name, cell))));
    return made;
  };
  const table = (label, heads, rows) => {
    const made = element("table", undefined, "plain");
    const top = element("tr");
    top.append(element("td"));
    for (const head of heads) {
      const cell = element("th", head);
      cell.scope = "col";
      top.append(cell);
    }
    const [thead, tbody] = [element("thead"), element("tbody")];
    thead.append(top);
    tbody.append(...rows);
    made.append(thead, tbody);
    const scroll = element("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", label);
    scroll.append(made);
    return scroll;
  };
  const share = ([value, low, high]) => `${value.toFixed(1)} [${low.toFixed(1)}, ${high.toFixed(1)}]`;
  const ones = (byte) => { let count = 0; for (; byte; byte >>= 1) count += byte & 1; return count; };
  // Examples that the first withstands and the second does not.
  const only = (first, second) => {
    const [one, other] = [atob(first.bits), atob(second.bits)];
    let count = 0;
    for (let at = 0; at < one.length; at++) count += ones(one.charCodeAt(at) & ~other.charCodeAt(at) & 255);
    return count;
  };

  const show = () => {
    const [a, b] = sides.map((each) => each.value);
    const [nameA, nameB] = sides.map((each) => each.selectedOptions[0].textContent);
    const heads = [nameA, nameB];
    const said = [...facts(a).querySelectorAll("dt")].map((term, at) =>
      row(term.textContent, [a, b].map((page) => facts(page).querySelectorAll("dd")[at].textContent)));
    place.replaceChildren(element("h2", "Models"), table("Models", heads, said));
    const of = (page) => new Map(numbers.filter((each) => each.page === page).map((each) => [`${each.group} ${each.twin}`, each]));
    const [own, other] = [of(a), of(b)];
    const shared = [...own.keys()].filter((key) => other.has(key));
    place.append(element("h2", "Where both were measured"));
    if (!shared.length) place.append(element("p", "No table has both, so that no two of their numbers may be compared.", "quiet"));
    for (const group of new Set(shared.map((key) => own.get(key).group))) {
      const keys = shared.filter((key) => own.get(key).group === group);
      place.append(element("h3", own.get(keys[0]).title));
      const rows = keys.flatMap((key) => {
        const [one, two] = [own.get(key), other.get(key)];
        return [
          row(`${one.twin}, robust`, [share(one.robust), share(two.robust)]),
          row("only this one withstands", [one, two].map((each, at) => `${only(each, at ? one : two)} of ${each.count} examples`)),
          row("clean", [share(one.clean), share(two.clean)]),
          row("verdict", [one.verdict, two.verdict]),
        ];
      });
      place.append(table(own.get(keys[0]).title, heads, rows));
    }
    const hash = `#a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`;
    if (location.hash !== hash) history.replaceState(null, "", hash);
  };

  const recall = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    const known = [...sides[0].options].map((option) => option.value);
    const [a, b] = [parts.get("a"), parts.get("b")];
    sides[0].value = known.includes(a) ? a : known[0];
    // Without a second one, a model that stands in a table with the first.
    const near = numbers.find((each) => each.page === sides[0].value);
    const beside = near && numbers.find((each) => each.group === near.group && each.page !== near.page);
    sides[1].value = known.includes(b) ? b : beside ? beside.page : known[known.length - 1];
    show();
  };
  document.getElementById("compare").hidden = false;
  for (const side of sides) side.addEventListener("change", show);
  addEventListener("hashchange", recall);
  recall();
})();
