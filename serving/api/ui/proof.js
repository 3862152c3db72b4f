// The proof card: what /models says about the model that answers.

import { at, make } from "./dom.js";
import { TEXT } from "./strings.js";

export function showProof(model) {
  const { figures, verdict, notes } = model.parity;
  at("proof").hidden = false;
  at("verdict").textContent = verdict === "PASSED" ? TEXT.passed : verdict;
  at("claim").textContent = claim(figures);
  const agreement = figures.accuracy ? figures.top1_agreement : figures.decided_agreement;
  at("proof-more").replaceChildren(...[agreement && TEXT.claimMore(agreement), ...(notes ?? [])].filter(Boolean).map(note =>
    make("p", { className: "quiet" }, note)));
  at("facts").replaceChildren(...facts(model).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function claim(figures) {
  const { accuracy, images, pictures } = figures;
  if (accuracy) {
    const values = { accuracy: accuracy.variant.value, reference: accuracy.reference.value };
    return TEXT.claimLabelled({ agreement: figures.top1_agreement, images, pictures, ...values });
  }
  return TEXT.claim({ agreement: figures.decided_agreement, decided: figures.decided_images });
}

function facts(model) {
  const { parity, promises } = model;
  const { pictures, images } = parity.figures;
  const names = TEXT.facts;
  const kept = [
    [names.variant, model.variant],
    [names.version, model.version],
    [names.runtime, `${parity.runtime.name} ${parity.runtime.version}, ${parity.runtime.executed_as}`],
    [names.machine, machine(parity.host)],
    [names.date, parity.date.slice(0, 16).replace("T", " ") + " UTC"],
    [names.reference, parity.reference],
    [names.data, pictures && pictures !== images ? TEXT.from(pictures, images) : `${TEXT.fromPictures(images)}: ${parity.data.description}`],
    [names.promises, promises && promises.threshold !== null && TEXT.promises(promises)],
    [names.sets, promises && promises.set_size !== null && TEXT.sets(promises)],
    [names.promisesFrom, promises && [TEXT.promisesFrom(promises), promises.note].filter(Boolean).join("; ")],
    [names.classes, model.labels.length.toLocaleString("en")],
    [names.source, model.source],
    [names.license, model.license],
  ];
  return kept.filter(([, value]) => value);
}

function machine(host) {
  return host && [host.cpu, TEXT.cores(host.cores), host.system].join(", ");
}
