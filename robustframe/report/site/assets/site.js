// Theme, filters and sorting. Everything stands in the page already: without this file it is a plain, sorted table.
"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  // A browser may refuse storage to pages from a file; the choice then lasts as long as the page.
  const stored = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem(key);
      localStorage.setItem(key, value);
    } catch { /* no storage */ }
    return null;
  };
  let theme = themes.includes(stored("theme")) ? stored("theme") : "auto";
  const dress = () => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  dress();

  const switchTheme = () => {
    const button = document.getElementById("theme");
    const say = () => { button.querySelector("span").textContent = theme; };
    button.hidden = false;
    say();
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      stored("theme", theme);
      dress();
      say();
    });
  };

  const board = () => {
    const form = document.getElementById("filters");
    if (!form) return;
    const groups = [...document.querySelectorAll("section.group")].map((section) => ({
      section,
      body: section.querySelector("tbody"),
      rows: [...section.querySelectorAll("tbody tr")].map((row, at) => ({
        row, at, text: `${row.textContent} ${section.querySelector(".heading").textContent}`.toLowerCase(),
      })),
    }));
    const total = groups.reduce((sum, group) => sum + group.rows.length, 0);
    const search = document.getElementById("q");
    const sort = document.getElementById("sort");
    const selects = [...form.querySelectorAll("select[data-key]")];
    const words = ["model", "twin"];
    const trust = ["sound", "unfinished", "suspicious", "unchecked", "begun"];
    const columns = { model: "th.model", twin: "td.who", verdict: "td.verd" };
    let order = { key: "robust", down: true };

    const value = (row, key) => {
      const cell = row.querySelector(columns[key] || `td.${key}`);
      const text = cell ? cell.dataset.v : "";
      if (words.includes(key)) return text.toLowerCase();
      if (key === "verdict") return trust.indexOf(text);
      return text === "" ? null : Number(text);
    };
    const compare = (a, b) => {
      const [one, other] = [value(a.row, order.key), value(b.row, order.key)];
      // What is unknown stands last, whichever way.
      if (one === null || other === null) return (one === null) - (other === null) || a.at - b.at;
      const found = one < other ? -1 : one > other ? 1 : 0;
      return (order.down ? -found : found) || a.at - b.at;
    };
    const arrange = () => {
      for (const group of groups) {
        group.body.append(...[...group.rows].sort(compare).map((each) => each.row));
        for (const button of group.section.querySelectorAll("[data-sort]")) {
          const head = button.closest("th");
          if (button.dataset.sort === order.key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
          else head.removeAttribute("aria-sort");
        }
      }
      sort.value = order.key;
    };
    const filter = () => {
      const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = selects.filter((each) => each.value).map((each) => [each.dataset.key, each.value]);
      let shown = 0;
      for (const group of groups) {
        let here = 0;
        for (const { row, text } of group.rows) {
          const fits = asked.every((word) => text.includes(word)) &&
            chosen.every(([key, want]) => (row.dataset[key] ?? group.section.dataset[key]) === want);
          row.hidden = !fits;
          here += fits;
        }
        group.section.hidden = here === 0;
        shown += here;
      }
      document.getElementById("count").textContent = shown === total ? `${total} rows` : `${shown} of ${total} rows`;
      document.getElementById("nothing").hidden = shown > 0;
    };
    // The filters stand in the address, so that a view can be passed on.
    const remember = () => {
      const parts = new URLSearchParams();
      if (search.value) parts.set("q", search.value);
      for (const each of selects) if (each.value) parts.set(each.dataset.key, each.value);
      if (order.key !== "robust" || !order.down) parts.set("sort", (order.down ? "-" : "") + order.key);
      const hash = parts.toString();
      // Not an empty one, which would lead to the top of the page.
      if (hash || location.hash.includes("=")) location.replace(`#${hash || "all"}`);
    };
    const recall = () => {
      if (!location.hash.includes("=")) return;
      const parts = new URLSearchParams(location.hash.slice(1));
      search.value = parts.get("q") || "";
      for (const each of selects) each.value = parts.get(each.dataset.key) || "";
      const key = parts.get("sort") || "-robust";
      order = { key: key.replace(/^-/, ""), down: key.startsWith("-") };
    };
    const by = (key) => {
      order = order.key === key ? { key, down: !order.down } : { key, down: !words.includes(key) && key !== "verdict" };
      arrange();
      remember();
    };

    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target === sort) return;
      filter();
      remember();
    });
    form.addEventListener("reset", () => setTimeout(() => {
      order = { key: "robust", down: true };
      arrange();
      filter();
      remember();
    }));
    sort.addEventListener("change", () => { order = { key: "", down: true }; by(sort.value); });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-sort]");
      if (button) by(button.dataset.sort);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
      event.preventDefault();
      search.focus();
    });
    recall();
    arrange();
    filter();
  };

  document.addEventListener("DOMContentLoaded", () => { switchTheme(); board(); });
})();
