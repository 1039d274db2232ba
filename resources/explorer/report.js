"use strict";
// The views that are drawn once: the scorecard and the figures.
(() => {
  const run = window.conceptcaps, { make, number } = window.dom;
  const at = (id) => document.getElementById(id);
  const figure = (value) => (Number.isInteger(value) ? number(value) : String(Number(value.toPrecision(4))));
  const measured = (found, claim) => {
    if (found.status) return [make("span", { class: "facts" }, `${found.status}: ${found.why}`)];
    const star = Object.keys(claim.unlike).length ? "*" : "";
    const interval = found.ci_low === null ? "" : ` [${figure(found.ci_low)}, ${figure(found.ci_high)}]`;
    return [make("b", {}, figure(found.value) + star), interval, make("small", { class: "facts" }, `${found.what}, N = ${number(found.n)}`)];
  };
  const heads = ["Claim", "Paper", "By its protocol", "By ours", "Why they differ"];
  let where = null;
  const claims = run.claims.flatMap((claim) => {
    const cells = [claim.claim, claim.paper === null ? "no number" : figure(claim.paper), measured(claim.protocol, claim), measured(claim.right, claim), claim.differs];
    const row = make("tr", { role: "row" }, ...cells.map((content, k) =>
      make(k ? "td" : "th", { role: k ? "cell" : "rowheader", scope: k ? null : "row", "data-head": heads[k] }, ...[content].flat())));
    if (claim.where === where) return [row];
    where = claim.where;
    return [make("tr", { role: "row", class: "where" }, make("th", { role: "columnheader", colspan: heads.length }, where)), row];
  });
  at("scorecard").append(make("table", { role: "table", "aria-labelledby": "scorecard-title" },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads.map((head) => make("th", { role: "columnheader", scope: "col" }, head)))),
    make("tbody", { role: "rowgroup" }, ...claims)));
  at("figures").append(...run.figures.map(({ name, size, caption }) => make("figure", {},
    make("img", { src: `figures/${name}.webp`, width: size[0], height: size[1], loading: "lazy", alt: `Figure: ${name}` }),
    make("figcaption", {}, caption))));
})();
