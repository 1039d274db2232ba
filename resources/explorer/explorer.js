"use strict";
// The explorer: everything of a run that the filters need is in `conceptcaps` (data/run.js); captions come in
// files of `chunk` tag sets (data/clips/), sound and spectrograms clip by clip, each when it is shown.
(() => {
  const run = window.conceptcaps, { make, number, unseen } = window.dom;
  const PAGE = 12; // clips on a page
  const KIND = ["named", "extra", "denied"]; // of a mark, as in explorer.py
  const arms = Object.keys(run.scores);
  const categories = Object.keys(run.categories);
  const vocabulary = Object.values(run.categories).flat();
  const at = (id) => document.getElementById(id);

  // ---- the rows, one per clip, in typed arrays: filtering 20,000 of them takes about a millisecond
  const nItems = run.ids.length;
  const words = Math.ceil(vocabulary.length / 32);
  const bits = new Uint32Array(nItems * words); // tag sets as bits
  run.tags.forEach((tags, item) => tags.forEach((tag) => { bits[item * words + (tag >> 5)] |= 1 << (tag & 31); }));
  const nRows = arms.reduce((sum, arm) => sum + run.scores[arm].filter((score) => score !== null).length, 0);
  const rowItem = new Uint32Array(nRows), rowArm = new Uint8Array(nRows), rowScore = new Int16Array(nRows);
  const armsOf = new Uint8Array(nItems); // how many arms an item has
  let filled = 0;
  for (let item = 0; item < nItems; item++) {
    arms.forEach((arm, a) => {
      const score = run.scores[arm][item];
      if (score === null) return;
      rowItem[filled] = item; rowArm[filled] = a; rowScore[filled++] = score; armsOf[item]++;
    });
  }
  const tableOrder = Uint32Array.from({ length: nRows }, (_, row) => row);
  const orders = { table: tableOrder };
  const orderOf = (name) => {
    const sign = name === "high" ? -1 : 1;
    return orders[name] ??= tableOrder.slice().sort((a, b) => sign * (rowScore[a] - rowScore[b]) || a - b);
  };
  const maskOf = (tags) => {
    const mask = new Uint32Array(words);
    tags.forEach((tag) => { mask[tag >> 5] |= 1 << (tag & 31); });
    return mask;
  };
  let first = 0;
  const categoryTags = categories.map((category) => {
    const tags = run.categories[category].map((_, k) => first + k);
    first += tags.length;
    return tags;
  });
  const categoryMask = categoryTags.map(maskOf);

  // ---- state
  const clear = () => ({
    arms: new Set(arms.keys()), splits: new Set([...run.splits.keys(), -1]), min: -Infinity, max: Infinity, verified: "",
    several: false, id: "", tags: new Map(), has: new Map(), sort: "table", page: 0, view: "clips",
  });
  let state = clear();
  let shown = tableOrder; // the rows that pass, in order

  function filter() {
    const withMask = maskOf([...state.tags].filter(([, want]) => want).map(([tag]) => tag));
    const withoutMask = maskOf([...state.tags].filter(([, want]) => !want).map(([tag]) => tag));
    const has = [...state.has].map(([category, want]) => [categoryMask[category], want]);
    const passes = new Uint8Array(nItems); // what depends on the tag set alone, once per tag set
    for (let item = 0; item < nItems; item++) {
      const base = item * words;
      let ok = state.splits.has(run.split[item]) && (!state.several || armsOf[item] > 1);
      if (ok && state.id) ok = run.ids[item].startsWith(state.id.slice(0, run.ids[item].length));
      for (let w = 0; ok && w < words; w++) {
        const set = bits[base + w];
        ok = ((set & withMask[w]) >>> 0) === withMask[w] && (set & withoutMask[w]) === 0;
      }
      for (let k = 0; ok && k < has.length; k++) {
        let any = false;
        for (let w = 0; w < words; w++) any ||= (bits[base + w] & has[k][0][w]) !== 0;
        ok = any === has[k][1];
      }
      passes[item] = ok ? 1 : 0;
    }
    const low = 1000 * state.min, high = 1000 * state.max;
    const rows = new Uint32Array(nRows);
    let n = 0;
    for (const row of orderOf(state.sort)) {
      // Only the dataset's own clips, arm 0, are audited.
      if (state.verified && (rowArm[row] !== 0 || run.verified[rowItem[row]] !== (state.verified === "yes"))) continue;
      if (passes[rowItem[row]] && state.arms.has(rowArm[row]) && rowScore[row] >= low && rowScore[row] <= high) rows[n++] = row;
    }
    return rows.subarray(0, n);
  }

  function countTags(rows) {
    const counts = new Uint32Array(vocabulary.length);
    for (const row of rows) for (const tag of run.tags[rowItem[row]]) counts[tag]++;
    return counts;
  }

  // ---- details of tag sets: one script per chunk, asked for once
  const chunks = new Map(); // chunk -> {promise, resolve}
  run.receive = (chunk, details) => chunks.get(chunk).resolve(details);
  function detailsOf(item) {
    const chunk = Math.floor(item / run.chunk);
    if (!chunks.has(chunk)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => { Object.assign(entry, { resolve, reject }); });
      chunks.set(chunk, entry);
      const source = `data/clips/${String(chunk).padStart(5, "0")}.js`;
      document.head.append(make("script", {
        src: source, onerror: () => { chunks.delete(chunk); entry.reject(new Error(`${source} is missing`)); },
      }));
    }
    return chunks.get(chunk).promise.then((details) => details[item % run.chunk]);
  }

  // ---- a clip
  function card(row, heading = "h3") {
    const item = rowItem[row], arm = arms[rowArm[row]], title = `clip-${heading}-${row}`;
    const split = run.splits[run.split[item]];
    const article = make("article", { class: "card", tabindex: 0, "aria-labelledby": title, "data-row": row },
      make("div", { class: "bar" },
        make(heading, { id: title }, arm, " ", make("code", {}, run.ids[item])),
        make("span", { class: "facts" }, `${split ? `${split} · ` : ""}CLAP ${(rowScore[row] / 1000).toFixed(3)}`
          + (run.verified[item] && arm === arms[0] ? " · verified" : ""))));
    detailsOf(item).then((details) => fill(article, row, details))
      .catch((error) => article.append(make("p", { role: "alert" }, `This clip cannot be shown: ${error.message}.`)));
    return article;
  }

  function fill(article, row, details) {
    const item = rowItem[row], arm = arms[rowArm[row]], clip = details.arms[arm];
    const sound = `audio/${clip.at}/${details.id}`;
    const audio = make("audio", { controls: true, preload: "none", src: `${sound}.flac`, "aria-label": `Clip ${run.ids[item]}, ${arm}` });
    const head = make("i");
    const picture = make("div", { class: "spectrogram" },
      make("img", { src: `${sound}.webp`, loading: "lazy", alt: `Spectrogram, ${clip.s} s, 0 to ${clip.hz / 2000} kHz` }), head);
    picture.addEventListener("click", (event) => {
      const share = event.offsetX / picture.clientWidth;
      const start = () => { audio.currentTime = share * audio.duration; audio.play(); };
      if (audio.readyState) start();
      else { audio.addEventListener("loadedmetadata", start, { once: true }); audio.load(); }
    });
    audio.addEventListener("play", () => {
      document.querySelectorAll("audio").forEach((other) => { if (other !== audio) other.pause(); });
      const move = () => {
        head.style.display = "block";
        head.style.left = `${100 * audio.currentTime / (audio.duration || clip.s)}%`;
        if (!audio.paused) requestAnimationFrame(move);
      };
      move();
    });
    article.append(picture, audio, captionOf(clip), tagsOf(item, clip, arm === arms[0] ? details.heard : null));
    const actions = make("div", { class: "actions" });
    if (armsOf[item] > 1 && !article.closest("dialog")) {
      actions.append(make("button", { type: "button", class: "compare", onclick: () => compare(item) },
        `Compare ${armsOf[item]} arms`, unseen(` of ${run.ids[item]}`)));
    }
    actions.append(make("a", { href: `${sound}.flac`, download: true }, "FLAC", unseen(` of clip ${run.ids[item]}, ${arm}`)));
    article.append(actions);
  }

  function captionOf(clip) {
    const text = make("p", { class: "caption" });
    let done = 0;
    for (const [start, end, kind, tag] of clip.marks) {
      text.append(clip.caption.slice(done, start),
        make("mark", { class: KIND[kind], title: `${KIND[kind]}: ${vocabulary[tag]}` }, clip.caption.slice(start, end)));
      done = end;
    }
    text.append(clip.caption.slice(done));
    return text;
  }

  function tagsOf(item, clip, heard) {
    const list = make("ul", { class: "chips", "aria-label": "Tags" });
    const chip = (tag, kind, sign, says) => {
      const entry = make("li", { class: `chip ${kind}` }, `${sign} ${vocabulary[tag]}`, unseen(`, ${says}`));
      const p = heard?.[tag];
      if (p !== undefined) entry.append(" ", make("small", { title: "probability that it is heard" }, p.toFixed(2)));
      list.append(entry);
    };
    for (const tag of run.tags[item]) {
      if (clip.named.includes(tag)) chip(tag, "named", "✓", "named");
      else if (clip.denied.includes(tag)) chip(tag, "denied", "✗", "denied by the caption");
      else chip(tag, "missing", "✗", "missing in the caption");
    }
    clip.extra.forEach((tag) => chip(tag, "extra", "+", "extra: not asked for"));
    return list;
  }

  function compare(item) {
    const rows = tableOrder.filter((row) => rowItem[row] === item);
    const names = run.tags[item].map((tag) => vocabulary[tag]).join(", ");
    at("compare-title").textContent = `${run.ids[item]}: ${names}`;
    const dialog = at("compare");
    dialog.showModal();
    at("compared").replaceChildren();
    for (const row of rows) {
      const element = card(row, "h4");
      at("compared").append(element);
    }
  }
  at("close").addEventListener("click", () => at("compare").close());
  at("compare").addEventListener("close", () => at("compared").replaceChildren());

  // ---- results
  function show({ keepFocus = true } = {}) {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const rows = [...shown.subarray(state.page * PAGE, (state.page + 1) * PAGE)];
    at("cards").replaceChildren(...rows.map((row) => card(row)));
    at("count").textContent = `${number(shown.length)} of ${number(nRows)} clips`;
    at("page").textContent = `page ${number(state.page + 1)} of ${number(pages)}`;
    at("previous").disabled = state.page === 0;
    at("next").disabled = state.page >= pages - 1;
    if (!keepFocus) (at("cards").firstElementChild ?? at("results")).focus();
    remember();
  }

  function update({ page = 0 } = {}) {
    shown = filter();
    state.page = page;
    const counts = countTags(shown);
    document.querySelectorAll(".tag").forEach((button) => {
      const tag = Number(button.dataset.tag), want = state.tags.get(tag);
      const said = want === undefined ? "" : want ? "with" : "without";
      button.dataset.state = said;
      button.firstChild.data = `${want === undefined ? "" : want ? "+ " : "− "}${vocabulary[tag]} `;
      button.querySelector("small").textContent = number(counts[tag]);
      button.querySelector(".unseen").textContent = ` clips${said && `, ${said} it only`}`;
      button.classList.toggle("none", counts[tag] === 0);
    });
    show();
  }

  function turn(by) { state.page += by; show({ keepFocus: false }); at("results").scrollIntoView(); }
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));

  // ---- filters
  function boxes(where, names, set) {
    at(where).append(...names.map(([value, name]) => make("label", {},
      make("input", { type: "checkbox", "data-value": value, onchange: (event) => {
        if (event.target.checked) set().add(value); else set().delete(value);
        update();
      } }), ` ${name}`)));
  }
  boxes("arms", arms.map((arm, a) => [a, arm]), () => state.arms);
  const splits = run.splits.map((split, s) => [s, split]);
  if (run.split.includes(-1)) splits.push([-1, "not in the dataset"]);
  boxes("splits", splits, () => state.splits);
  categories.forEach((category, c) => {
    const list = make("div", { class: "list", role: "group", "aria-label": `Tags: ${category}` });
    for (const tag of categoryTags[c]) {
      list.append(make("button", { type: "button", class: "tag", "data-tag": tag, onclick: () => {
        const want = state.tags.get(tag); // none -> with -> without -> none
        if (want === undefined) state.tags.set(tag, true);
        else if (want) state.tags.set(tag, false);
        else state.tags.delete(tag);
        update();
      } }, "", make("small"), unseen("")));
      list.lastChild.prepend(document.createTextNode(vocabulary[tag]));
    }
    at("tags").append(make("div", { class: "category" },
      make("label", { class: "row" }, make("strong", {}, category),
        make("select", { "data-category": c, onchange: (event) => {
          if (event.target.value) state.has.set(c, event.target.value === "some"); else state.has.delete(c);
          update();
        } }, make("option", { value: "" }, "any"), make("option", { value: "some" }, "has one"), make("option", { value: "none" }, "has none"))),
      list));
  });
  at("find-tag").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    document.querySelectorAll(".tag").forEach((button) => { button.hidden = !vocabulary[button.dataset.tag].includes(wanted); });
  });
  const bound = (id, otherwise) => {
    const value = Number.parseFloat(at(id).value);
    return Number.isFinite(value) ? value : otherwise;
  };
  at("min").addEventListener("input", () => { state.min = bound("min", -Infinity); update(); });
  at("max").addEventListener("input", () => { state.max = bound("max", Infinity); update(); });
  at("several").addEventListener("change", (event) => { state.several = event.target.checked; update(); });
  at("verified").addEventListener("change", (event) => { state.verified = event.target.value; update(); });
  at("verified-line").hidden = !run.verified.some((value) => value !== null);
  at("id").addEventListener("input", (event) => { state.id = event.target.value.trim().toLowerCase(); update(); });
  at("sort").addEventListener("change", (event) => { state.sort = event.target.value; update(); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    state = clear();
    reflect();
    update();
  });

  function reflect() { // bring the controls to the state
    document.querySelectorAll("#arms input").forEach((box) => { box.checked = state.arms.has(Number(box.dataset.value)); });
    document.querySelectorAll("#splits input").forEach((box) => { box.checked = state.splits.has(Number(box.dataset.value)); });
    document.querySelectorAll("[data-category]").forEach((select) => {
      const want = state.has.get(Number(select.dataset.category));
      select.value = want === undefined ? "" : want ? "some" : "none";
    });
    at("min").value = Number.isFinite(state.min) ? state.min : "";
    at("max").value = Number.isFinite(state.max) ? state.max : "";
    at("several").checked = state.several;
    at("verified").value = state.verified;
    at("id").value = state.id;
    at("sort").value = state.sort;
  }

  // ---- the address carries the state, so that a view can be sent to somebody
  function remember() {
    const query = new URLSearchParams();
    if (state.tags.size) query.set("tags", [...state.tags].map(([tag, want]) => (want ? "" : "-") + vocabulary[tag]).join("|"));
    state.has.forEach((want, c) => query.set(categories[c], want ? "some" : "none"));
    if (state.arms.size < arms.length) query.set("arms", [...state.arms].map((a) => arms[a]).join("|"));
    if (!run.splits.every((_, s) => state.splits.has(s)) || !state.splits.has(-1)) query.set("splits", [...state.splits].map((s) => run.splits[s] ?? "none").join("|"));
    if (Number.isFinite(state.min)) query.set("min", state.min);
    if (Number.isFinite(state.max)) query.set("max", state.max);
    for (const key of ["id", "verified"]) if (state[key]) query.set(key, state[key]);
    if (state.several) query.set("several", "yes");
    if (state.sort !== "table") query.set("sort", state.sort);
    if (state.page) query.set("page", state.page + 1);
    if (state.view !== "clips") query.set("view", state.view);
    history.replaceState(null, "", `#${query}`);
  }

  function recall() {
    const query = new URLSearchParams(location.hash.slice(1));
    const listed = (key) => (query.get(key) ?? "").split("|").filter(Boolean);
    state = clear();
    for (const name of listed("tags")) {
      const tag = vocabulary.indexOf(name.replace(/^-/, ""));
      if (tag >= 0) state.tags.set(tag, !name.startsWith("-"));
    }
    categories.forEach((category, c) => { if (query.has(category)) state.has.set(c, query.get(category) === "some"); });
    if (query.has("arms")) state.arms = new Set(listed("arms").map((arm) => arms.indexOf(arm)));
    if (query.has("splits")) state.splits = new Set(listed("splits").map((split) => run.splits.indexOf(split)));
    if (query.has("min")) state.min = Number(query.get("min"));
    if (query.has("max")) state.max = Number(query.get("max"));
    state.id = query.get("id") ?? "";
    state.verified = query.get("verified") ?? "";
    state.several = query.has("several");
    if (["high", "low"].includes(query.get("sort"))) state.sort = query.get("sort");
    open(views.some((button) => button.dataset.view === query.get("view")) ? query.get("view") : "clips");
    reflect();
    update({ page: Number(query.get("page") ?? 1) - 1 || 0 });
  }

  // ---- keys, while a clip or the results have the focus
  function keys(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const current = event.target.closest(".card");
    const audio = current?.querySelector("audio");
    const step = (where) => (current ? current[where] : event.currentTarget.querySelector(".card"))?.focus();
    const does = {
      j: () => step("nextElementSibling"),
      k: () => step("previousElementSibling"),
      p: () => audio && (audio.paused ? audio.play() : audio.pause()),
      c: () => current?.querySelector(".compare")?.click(),
      n: () => !at("next").disabled && event.currentTarget === at("results") && turn(1),
      b: () => !at("previous").disabled && event.currentTarget === at("results") && turn(-1),
    }[event.key.toLowerCase()];
    if (does) { event.preventDefault(); does(); }
  }
  at("results").addEventListener("keydown", keys);
  at("compare").addEventListener("keydown", keys);

  // ---- the other views
  const views = [...document.querySelectorAll("[data-view]")];
  function open(name) {
    state.view = name;
    for (const button of views) {
      const chosen = button.dataset.view === name;
      if (chosen) button.setAttribute("aria-current", "page"); else button.removeAttribute("aria-current");
      at(`view-${button.dataset.view}`).hidden = !chosen;
    }
    document.querySelectorAll("audio").forEach((audio) => audio.pause());
  }
  views.forEach((button) => button.addEventListener("click", () => { open(button.dataset.view); remember(); }));
  at("name").textContent = `${run.name}: clips`;
  document.title = `${run.name} explorer`;
  at("run").textContent = `Run ${run.run_id}: ${number(nRows)} clips of ${number(nItems)} tag sets, ${arms.length} arms (${arms.join(", ")}).`;
  if (matchMedia("(max-width: 48rem)").matches) at("filter-panel").open = false;
  recall();
  window.addEventListener("hashchange", recall);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address holds the filters
    open("clips");
    at("results").focus();
  });
})();
