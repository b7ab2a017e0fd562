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
    // A row and the one with its sweeps below it go together.
    const tables = [...document.querySelectorAll("table.board")].map((table) => ({
      table,
      body: table.tBodies[0],
      section: table.closest("section.measured"),
      rows: [...table.querySelectorAll("tbody tr:not(.sweeps)")].map((row, at) => ({ row, at, below: row.nextElementSibling })),
    }));
    for (const { section, table, rows } of tables) {
      const head = `${section.querySelector("h2").textContent} ${table.closest(".group").querySelector(".note").textContent}`;
      for (const each of rows) each.text = `${each.row.textContent} ${head}`.toLowerCase();
    }
    const total = tables.reduce((sum, { rows }) => sum + rows.length, 0);
    const points = [...document.querySelectorAll(".plot [data-row]")];
    const folds = [...document.querySelectorAll("details.also, details.apart")].map((fold) => ({ fold, open: fold.open }));
    const search = document.getElementById("q");
    const sort = document.getElementById("sort");
    const selects = [...form.querySelectorAll("select[data-key]")];
    const trust = ["sound", "unchecked", "unfinished", "suspicious", "begun"];
    const columns = {
      model: "th.model", verdict: "td.verd", ff: "td.robust.ff", rec: "td.robust.rec",
      diff: "td.diff", clean: "td.clean", coherence: "td.coherence",
    };
    let order = { key: "robust", down: true };

    const number = (text) => (text === undefined || text === "" ? null : Number(text));
    const value = (row, key) => {
      if (key === "robust") {
        const known = [...row.querySelectorAll("td.robust")].map((cell) => number(cell.dataset.v)).filter((each) => each !== null);
        return known.length ? Math.max(...known) : null;
      }
      const text = row.querySelector(columns[key])?.dataset.v;
      if (key === "model") return text.toLowerCase();
      return key === "verdict" ? trust.indexOf(text) : number(text);
    };
    const compare = (a, b) => {
      const [one, other] = [value(a.row, order.key), value(b.row, order.key)];
      // What is unknown stands last, whichever way.
      if (one === null || other === null) return (one === null) - (other === null) || a.at - b.at;
      const found = one < other ? -1 : one > other ? 1 : 0;
      return (order.down ? -found : found) || a.at - b.at;
    };
    const arrange = () => {
      for (const { table, body, rows } of tables) {
        body.append(...[...rows].sort(compare).flatMap((each) => [each.row, each.below]));
        for (const button of table.querySelectorAll("[data-sort]")) {
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
      for (const { section, rows } of tables) {
        for (const { row, below, text } of rows) {
          const fits = asked.every((word) => text.includes(word)) &&
            chosen.every(([key, want]) => (row.dataset[key] ?? section.dataset[key]) === want);
          row.hidden = !fits;
          below.hidden = !fits || row.querySelector(".unfold").getAttribute("aria-expanded") !== "true";
          shown += fits;
        }
      }
      const some = (place) => place.querySelector("tbody tr:not(.sweeps):not([hidden])") !== null;
      for (const { table, section } of tables) {
        table.hidden = !some(table);
        section.hidden = !some(section);
      }
      // What fits is not left inside a fold; without filters folds are as they were made.
      const filtered = asked.length + chosen.length > 0;
      for (const { fold, open } of folds) {
        fold.hidden = !some(fold);
        fold.open = filtered ? some(fold) : open;
      }
      for (const point of points) point.classList.toggle("out", document.getElementById(point.dataset.row).hidden);
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
      order = order.key === key ? { key, down: !order.down } : { key, down: key !== "model" && key !== "verdict" };
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
    for (const { rows } of tables) for (const { row } of rows) {
      const button = row.querySelector(".unfold");
      button.hidden = false;
      button.addEventListener("click", () => {
        button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") === "true" ? "false" : "true");
        document.getElementById(button.getAttribute("aria-controls")).hidden = button.getAttribute("aria-expanded") !== "true";
      });
    }
    recall();
    arrange();
    filter();
    // An address may name a row inside a fold.
    const reveal = () => {
      const at = location.hash.includes("=") ? null : document.getElementById(decodeURIComponent(location.hash.slice(1)));
      for (let fold = at?.closest("details:not([open])"); fold; fold = fold.parentElement.closest("details:not([open])")) fold.open = true;
      if (at?.closest("details")) at.scrollIntoView();
    };
    addEventListener("hashchange", reveal);
    reveal();
  };

  const questions = () => {
    for (const button of document.querySelectorAll(".structures")) {
      const section = button.closest(".question");
      if (!section.querySelector("tbody:not(.leading) .sub")) continue;
      section.classList.add("folded");
      button.hidden = false;
      button.addEventListener("click", () => {
        button.setAttribute("aria-expanded", section.classList.toggle("folded") ? "false" : "true");
      });
    }
  };

  const examples = () => {
    const form = document.getElementById("pick");
    if (!form) return;
    const items = [...document.querySelectorAll(".examples li")];
    const filter = () => {
      const chosen = [...form.querySelectorAll("select")].filter((each) => each.value).map((each) => [each.dataset.key, each.value]);
      for (const item of items) {
        const section = item.closest("section");
        item.hidden = !chosen.every(([key, want]) => (item.dataset[key] ?? section.dataset[key]) === want);
      }
      for (const section of document.querySelectorAll("section.run")) {
        section.hidden = section.querySelector("li:not([hidden])") === null;
      }
      document.getElementById("count").textContent = `${items.filter((each) => !each.hidden).length} of ${items.length} examples`;
    };
    form.hidden = false;
    form.addEventListener("input", filter);
    filter();
  };

  document.addEventListener("DOMContentLoaded", () => { switchTheme(); questions(); board(); examples(); });
})();
