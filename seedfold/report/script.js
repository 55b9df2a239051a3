// The page's one script: a candidate's numbers beside its dot, and answers side by side. The page is complete without it.
"use strict";

const read = (id) => {
  const element = document.getElementById(id);
  return element && JSON.parse(element.textContent);
};

// An element with properties and children; text goes in as text, never as markup.
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const percent = (value) => (100 * value).toFixed(1) + " %";
const minus = (text) => text.replace(/^-/, "−");

// Candidates: each dot of a figure stands for one or more rows of the table that the page carries.

const NEAR = 16; // units of the figure, within which a pointer means a dot

function candidates() {
  const rows = read("candidates");
  if (!rows) return;
  const views = [...document.querySelectorAll("svg.figure")].map(dots).filter((view) => view.points.length);
  const lines = new Map([...document.querySelectorAll("tr[data-c]")].map((line) => [Number(line.dataset.c), line]));
  const ranked = rows.map((_, i) => i).sort((a, b) => rows[a].rank - rows[b].rank);

  // A candidate need not have every score: without graded answers to search there is none of those.
  const score = (name, value, more = "") => (value === null ? [] : [`${name} ${percent(value)}${more}`]);
  const told = ({ seed, scale, search, examples, expected, select, rank }) =>
    [
      `rank ${rank} · seed ${seed} · σ ${minus(String(scale))}`,
      ...score("search", search, ` on ${examples} examples`),
      ...score("expected", expected),
      ...score("select", select),
    ].join(" · ");

  // Mark some candidates in every figure and in the table, and say what they are below the figure that was asked.
  function show(view, chosen) {
    for (const other of views) {
      other.ring.replaceChildren(
        ...other.points.filter((point) => point.of.some((i) => chosen.includes(i))).map((point) => {
          const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
          for (const [name, value] of [["class", "ring"], ["cx", point.x], ["cy", point.y], ["r", point.r + 4]])
            ring.setAttribute(name, value);
          return ring;
        }),
      );
      if (other !== view) other.said.textContent = "";
    }
    for (const [i, line] of lines) line.classList.toggle("marked", chosen.includes(i));
    if (!view) return;
    const [first] = chosen;
    const more = chosen.length > 1 ? `${chosen.length} candidates here, the best: ` : "";
    view.said.textContent = chosen.length ? more + told(rows[first]) : view.hint;
  }

  for (const view of views) {
    const there = new Set(view.points.flatMap((point) => point.of));
    const byRank = ranked.filter((i) => there.has(i));
    for (const point of view.points) point.of.sort((a, b) => rows[a].rank - rows[b].rank);
    let place = 0;
    view.svg.tabIndex = 0;
    view.said.textContent = view.hint;
    view.svg.after(view.said);
    const at = (event) => {
      const matrix = view.svg.getScreenCTM().inverse();
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      let best = null, least = NEAR * NEAR;
      for (const point of view.points) {
        const far = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (far < least) [best, least] = [point, far];
      }
      show(view, best ? best.of : []);
      if (best) place = byRank.indexOf(best.of[0]);
    };
    view.svg.addEventListener("pointermove", at);
    view.svg.addEventListener("pointerdown", at);
    view.svg.addEventListener("pointerleave", () => show(view, []));
    view.svg.addEventListener("focus", () => view.svg.matches(":focus-visible") && show(view, [byRank[place]]));
    view.svg.addEventListener("blur", () => show(view, []));
    view.svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      place = Math.min(byRank.length - 1, Math.max(0, place + step));
      show(view, [byRank[place]]);
    });
  }
  for (const [i, line] of lines) {
    line.addEventListener("pointerenter", () => show(null, [i]));
    line.addEventListener("pointerleave", () => show(null, []));
  }
}

// The places of a figure's dots: circles that name their candidates, or one path with a vertex for each candidate.
function dots(svg) {
  const points = [...svg.querySelectorAll("circle[data-c]")].map((dot) => {
    dot.querySelector("title")?.remove(); // what is said below the figure says more
    const [x, y, r] = ["cx", "cy", "r"].map((name) => Number(dot.getAttribute(name)));
    return { x, y, r, of: dot.dataset.c.split(" ").map(Number) };
  });
  const path = svg.querySelector("path[data-all]");
  if (path)
    for (const place of path.getAttribute("d").split("M").slice(1)) {
      const [x, y] = place.split(/[ h]/).map(Number);
      points.push({ x, y, r: 1, of: [points.length] });
    }
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "g");
  svg.append(ring);
  const said = make("p", { className: "said small quiet", ariaLive: "polite" });
  return { svg, points, ring, said, hint: "Point at a dot to see its numbers, or go through them with the arrow keys." };
}

// Answers side by side

const STEP = 20; // examples shown at first, and with each press of "more"
const CELLS = 400_000; // of the table that compares two texts word by word; beyond it nothing is marked

function answers() {
  const found = read("answers");
  const view = document.getElementById("answers-view");
  if (!found || !view) return;
  const kinds = found.binary
    ? { fixed: "fixed", broken: "broken", right: "both right", wrong: "both wrong" }
    : { fixed: "better", broken: "worse", right: "the same" };
  const kind = ({ answers: all }, method) => {
    const [was, is] = [all[0][2], all[method][2]];
    return is > was ? "fixed" : is < was ? "broken" : found.binary && was === 0 ? "wrong" : "right";
  };
  let method = found.chosen, filter = "", most = STEP;
  const choice = make("select", {}, ...found.names.slice(1).map((name, i) => make("option", { value: i + 1 }, name)));
  choice.value = method;
  const words = make("input", { type: "search", placeholder: "words in question or answers" });
  const buttons = make("span", { className: "buttons" });
  const list = make("div");
  const more = make("button", { type: "button", textContent: "more" });
  const label = (name, field) => make("label", {}, name + " ", field);
  view.append(
    make("div", { className: "controls" }, label("base against", choice), buttons, label("find", words)), list, more,
  );

  function draw() {
    const count = (name) => found.examples.filter((one) => !name || kind(one, method) === name).length;
    buttons.replaceChildren(
      ...[["", "all"], ...Object.entries(kinds)].map(([name, shown]) => {
        const press = () => { filter = name; most = STEP; draw(); };
        const button = make("button", { type: "button", onclick: press }, `${shown} ${count(name)}`);
        button.setAttribute("aria-pressed", String(filter === name));
        button.dataset.kind = name;
        return button;
      }),
    );
    const wanted = words.value.toLowerCase();
    const fits = (one) =>
      (!filter || kind(one, method) === filter) &&
      (!wanted || [one.question, one.answers[0][0], one.answers[method][0]].some((t) => t.toLowerCase().includes(wanted)));
    const chosen = found.examples.filter(fits);
    list.replaceChildren(...chosen.slice(0, most).map(entry));
    if (!chosen.length) list.replaceChildren(make("p", { className: "quiet", textContent: "No example is like that." }));
    more.hidden = chosen.length <= most;
  }

  function entry(one) {
    const what = kind(one, method);
    const summary = make("summary", {}, make("span", { className: `kind ${what}` }, kinds[what]), " ",
      make("bdi", {}, one.question.replace(/\s+/g, " ").slice(0, 160) || "(the question is not known)"));
    const details = make("details", {}, summary);
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      const [was, is] = [one.answers[0], one.answers[method]];
      const [left, right] = compared(was[0], is[0]);
      if (one.question.length > 160 || one.question.includes("\n")) details.append(make("pre", {}, one.question));
      if (one.right) details.append(make("p", { className: "small" }, "right answer: ", make("code", {}, one.right)));
      details.append(make("div", { className: "pair" }, side("base", was, left), side(found.names[method], is, right)));
    });
    return details;
  }

  function side(name, [, answer, reward, lenient, cut], body) {
    const facts = [`reward ${+reward.toFixed(3)}`];
    if (lenient !== reward) facts.push(`lenient ${+lenient.toFixed(3)}`);
    facts.push(answer === null ? "no answer to vote on" : `answer ${answer.slice(0, 80)}`);
    if (cut) facts.push("cut off");
    return make("div", {}, make("h3", {}, name), make("p", { className: "small quiet" }, make("bdi", {}, facts.join(" · "))), body);
  }

  choice.addEventListener("change", () => { method = Number(choice.value); draw(); });
  words.addEventListener("input", () => { most = STEP; draw(); });
  more.addEventListener("click", () => { most += STEP; draw(); });
  draw();
}

// Two texts as elements in which the words outside their longest common subsequence are marked.
function compared(left, right) {
  const [a, b] = [left, right].map((text) => text.match(/\s+|[^\s]+/g) ?? []);
  const common = [new Set(), new Set()];
  const large = a.length * b.length > CELLS;
  if (!large) {
    const wide = b.length + 1, best = new Uint16Array((a.length + 1) * wide);
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i * wide + j] = a[i] === b[j] ? best[(i + 1) * wide + j + 1] + 1
          : Math.max(best[(i + 1) * wide + j], best[i * wide + j + 1]);
    for (let i = 0, j = 0; i < a.length && j < b.length; )
      if (a[i] === b[j]) common[0].add(i++), common[1].add(j++);
      else if (best[(i + 1) * wide + j] >= best[i * wide + j + 1]) i++;
      else j++;
  }
  return [a, b].map((words, side) =>
    make("pre", {}, ...words.map((word, i) =>
      large || common[side].has(i) || !word.trim() ? word : make("mark", {}, word))));
}

candidates();
answers();
