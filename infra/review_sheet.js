"use strict";
// Nothing here asks the network for anything; the page's Content-Security-Policy would not let it.
(function () {
  const page = document.body.dataset;
  const expires = new Date(page.expires).getTime();
  const sections = Array.from(document.querySelectorAll(".candidate"));
  const steps = Array.from(document.querySelectorAll("#progress button"));
  const byId = (id) => document.getElementById(id);
  const NARROWEST = 1, WIDEST = 16, STEP = 1.25, MOVE_PX = 40;
  let current = 0, unsaved = false;

  // The images, as long as they may be shown.
  function showImages() {
    const pictures = JSON.parse(byId("pictures").textContent);
    for (const image of document.querySelectorAll("img[data-picture]")) {
      image.src = "data:image/jpeg;base64," + pictures[image.dataset.picture];
    }
  }
  function keepTime() {
    const left = Math.floor((expires - Date.now()) / 60000);
    if (Date.now() >= expires) {
      for (const image of document.querySelectorAll("img[data-picture]")) { image.remove(); }
      for (const marks of document.querySelectorAll(".layer svg")) { marks.remove(); }
      byId("pictures").textContent = "{}";
      byId("expired").hidden = false;
      byId("left").textContent = "(expired)";
      clearInterval(clock);
    } else {
      byId("left").textContent = "(" + Math.floor(left / 60) + " h " + (left % 60) + " min left)";
    }
  }
  const clock = setInterval(keepTime, 5000);
  document.addEventListener("visibilitychange", keepTime);
  if (Date.now() < expires) { showImages(); }
  keepTime();

  // Zoom, move and mirror: both sides together unless they were set free.
  function viewerOf(section) {
    const compare = section.querySelector(".compare");
    const together = section.querySelector("[data-do=together]");
    const sides = Array.from(section.querySelectorAll(".pane")).map((pane) => ({
      pane: pane, frame: pane.querySelector(".frame"), layer: pane.querySelector(".layer"),
      flip: pane.querySelector("[data-do=flip]"), zoom: 1, x: 0, y: 0, mirrored: false,
    }));
    const isTogether = () => together.getAttribute("aria-pressed") === "true";
    const chosen = (side) => (isTogether() || !side ? sides : [side]);
    function draw(side) {
      if (side.layer) {
        side.layer.style.transform = "translate(" + side.x + "px," + side.y + "px) scale(" +
          (side.mirrored ? -side.zoom : side.zoom) + "," + side.zoom + ")";
      }
    }
    function zoom(side, times, at) {
      for (const each of chosen(side)) {
        const wanted = Math.min(WIDEST, Math.max(NARROWEST, each.zoom * times)), grown = wanted / each.zoom;
        const x = at ? at.x : 0, y = at ? at.y : 0;
        each.x = wanted === 1 ? 0 : x - (x - each.x) * grown;
        each.y = wanted === 1 ? 0 : y - (y - each.y) * grown;
        each.zoom = wanted;
        draw(each);
      }
    }
    function move(side, x, y) {
      for (const each of chosen(side)) { each.x += x; each.y += y; draw(each); }
    }
    function reset() {
      for (const each of sides) { each.zoom = 1; each.x = 0; each.y = 0; draw(each); }
    }
    function flip(side) {
      side.mirrored = !side.mirrored;
      side.flip.setAttribute("aria-pressed", String(side.mirrored));
      draw(side);
    }
    function toggle(button) {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      return on;
    }
    const marks = section.querySelector("[data-do=landmarks]");
    const act = {
      "in": () => zoom(null, STEP), "out": () => zoom(null, 1 / STEP), "reset": reset, "together": () => toggle(together),
      "landmarks": () => { if (!marks.disabled) { compare.classList.toggle("marked", toggle(marks)); } },
    };
    for (const button of section.querySelectorAll(".tools button")) {
      button.addEventListener("click", () => act[button.dataset.do]());
    }
    for (const side of sides) {
      side.flip.addEventListener("click", () => flip(side));
      side.frame.addEventListener("wheel", (event) => {
        event.preventDefault();
        const box = side.frame.getBoundingClientRect();
        zoom(side, event.deltaY < 0 ? STEP : 1 / STEP,
          { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 });
      }, { passive: false });
      side.frame.addEventListener("pointerdown", (event) => {
        side.frame.setPointerCapture(event.pointerId);
        side.frame.classList.add("held");
      });
      side.frame.addEventListener("pointermove", (event) => {
        if (side.frame.classList.contains("held")) { move(side, event.movementX, event.movementY); }
      });
      for (const end of ["pointerup", "pointercancel"]) {
        side.frame.addEventListener(end, () => side.frame.classList.remove("held"));
      }
    }
    const keys = {
      "+": act["in"], "=": act["in"], "-": act["out"], "0": act["reset"], "l": act["landmarks"], "s": act["together"],
      "p": () => flip(sides[0]), "c": () => flip(sides[1]),
      "ArrowLeft": () => move(null, MOVE_PX, 0), "ArrowRight": () => move(null, -MOVE_PX, 0),
      "ArrowUp": () => move(null, 0, MOVE_PX), "ArrowDown": () => move(null, 0, -MOVE_PX),
      ",": () => show(current - 1), ".": () => show(current + 1),
    };
    compare.addEventListener("keydown", (event) => {
      if (event.target !== compare || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) { return; }
      event.preventDefault();
      keys[event.key]();
    });
  }

  // What the examiner says of a candidate, and whether it is all.
  const finding = (row) => row.querySelector("input[type=radio]:checked");
  const words = (section, name) => section.querySelector("[name=" + name + "]").value.trim();
  function read(section) {
    const conclusion = section.querySelector(".conclusion input:checked");
    const rows = Array.from(section.querySelectorAll(".feature"));
    const found = rows.filter(finding);
    return {
      missing: rows.length - found.length, rows: rows.length, conclusion: conclusion ? conclusion.value : "",
      limitations: words(section, "limitations"),
      isBegun: Boolean(found.length || conclusion || words(section, "limitations")),
      decision: {
        capture_id: section.dataset.capture,
        features: found.map((row) => ({
          feature: row.dataset.feature, finding: finding(row).value,
          note: row.querySelector("input[type=text]").value.trim(),
        })),
        limitations: words(section, "limitations"), conclusion: conclusion ? conclusion.value : "",
        note: words(section, "note"),
      },
    };
  }
  const isDone = (said) => !said.missing && Boolean(said.conclusion) && Boolean(said.limitations);
  function refresh() {
    let done = 0;
    sections.forEach((section, number) => {
      const said = read(section), open = [];
      if (said.missing) { open.push(said.missing + " of " + said.rows + " features"); }
      if (!said.limitations) { open.push("limitations"); }
      if (!said.conclusion) { open.push("conclusion"); }
      section.querySelector(".state").textContent =
        open.length ? "Still open: " + open.join(", ") + "." : "This candidate is decided.";
      done += isDone(said) ? 1 : 0;
      const state = isDone(said) ? "done" : said.isBegun ? "begun" : "open";
      steps[number].dataset.state = state;
      steps[number].setAttribute("aria-label", "Candidate " + (number + 1) + ", " +
        { done: "decided", begun: "begun", open: "not begun" }[state]);
    });
    byId("told").textContent = done + " of " + sections.length + " decided";
    byId("save").disabled = !done;
  }

  function show(number, quietly) {
    if (number < 0 || number >= sections.length) { return; }
    current = number;
    sections.forEach((section, index) => section.classList.toggle("away", index !== number));
    steps.forEach((step, index) => step.setAttribute("aria-current", String(index === number)));
    byId("previous").disabled = number === 0;
    byId("next").disabled = number === sections.length - 1;
    if (!quietly) { sections[number].querySelector(".compare").focus(); }
  }

  function save() {
    const said = sections.map(read);
    const decisions = said.filter(isDone).map((each) => each.decision);
    const left = said.filter((each) => each.isBegun && !isDone(each)).length;
    const file = { format: "leadstream-review-1", probe_id: page.probe, review_id: page.review,
      examiner: page.examiner, decisions: decisions };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
    link.download = "review-" + page.review + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = left > 0;
    byId("told").textContent = decisions.length + " of " + sections.length + " saved" +
      (left ? ", " + left + " begun is not" : "");
  }

  function fill(section, decision) {
    for (const row of section.querySelectorAll(".feature")) {
      const said = decision.features.find((each) => each.feature === row.dataset.feature);
      if (!said) { continue; }
      const radio = Array.from(row.querySelectorAll("input[type=radio]")).find((each) => each.value === said.finding);
      if (radio) { radio.checked = true; }
      row.querySelector("input[type=text]").value = String(said.note);
    }
    for (const radio of section.querySelectorAll(".conclusion input")) { radio.checked = radio.value === decision.conclusion; }
    section.querySelector("[name=limitations]").value = String(decision.limitations);
    section.querySelector("[name=note]").value = String(decision.note);
  }
  async function load(file) {
    try {
      const said = JSON.parse(await file.text());
      if (said.review_id !== page.review) { throw new Error("another review"); }
      const known = said.decisions.filter((each) => sections.some((section) => section.dataset.capture === each.capture_id));
      for (const each of known) { fill(sections.find((section) => section.dataset.capture === each.capture_id), each); }
      refresh();
      byId("told").textContent = known.length + " of " + sections.length + " loaded";
    } catch (error) {
      byId("told").textContent = "That file holds no decisions of this review.";
    }
  }

  sections.forEach((section) => {
    viewerOf(section);
    section.querySelector("[data-do=rest]").addEventListener("click", () => {
      for (const row of section.querySelectorAll(".feature")) {
        if (!finding(row)) { row.querySelector("input[value=NOT_COMPARABLE]").checked = true; }
      }
      unsaved = true;
      refresh();
    });
    section.addEventListener("input", () => { unsaved = true; refresh(); });
    section.addEventListener("submit", (event) => event.preventDefault());
  });
  steps.forEach((step, number) => step.addEventListener("click", () => show(number)));
  byId("previous").addEventListener("click", () => show(current - 1));
  byId("next").addEventListener("click", () => show(current + 1));
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("change", (event) => {
    if (event.target.files.length) { load(event.target.files[0]); }
    event.target.value = "";
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved) { event.preventDefault(); } });
  refresh();
  show(0, true);
}());
