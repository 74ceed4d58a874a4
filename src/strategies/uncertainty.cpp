// Pointwise scores: the rows about which the model is least sure, without interaction. The formulas are in rules.hpp.
// Equal scores go to the smaller row.
#include "strategies/strategies.hpp"

namespace seine {
namespace {

Picked pick_by_score(Pool& pool, const Task& task) {
  Picked picked;
  for (const Candidate& candidate : best_by_score(pool, task.best, task.batch))
    picked.selection.add(candidate.row, static_cast<float>(candidate.value), candidate.value);
  return picked;
}

Entry score_entry(ScoreKind kind) {
  Entry entry;
  entry.inputs = "probabilities [N,C] or [N,T,C] (averaged), or logits";
  entry.cost = "one pass, N T C logarithms or comparisons";
  entry.needs.probabilities = true;
  entry.objective = Objective::scores;
  entry.score = kind;
  entry.pick = pick_by_score;
  entry.work = work_of_one_pass;
  return entry;
}

}  // namespace

Entry entropy_entry() {
  Entry entry = score_entry(ScoreKind::entropy);
  entry.name = "entropy";
  entry.summary = "largest entropy of the prediction, in nats";
  entry.source = "Shannon, A Mathematical Theory of Communication, 1948";
  return entry;
}

Entry least_confidence_entry() {
  Entry entry = score_entry(ScoreKind::least_confidence);
  entry.name = "least_confidence";
  entry.summary = "smallest probability of the predicted class: 1 - max";
  entry.source = "Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, SIGIR 1994";
  return entry;
}

Entry margin_entry() {
  Entry entry = score_entry(ScoreKind::margin);
  entry.name = "margin";
  entry.summary = "smallest margin between the two best classes: 1 - (first - second)";
  entry.source = "Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001";
  return entry;
}

Entry bald_entry() {
  Entry entry = score_entry(ScoreKind::bald);
  entry.name = "bald";
  entry.summary = "largest mutual information between prediction and model";
  entry.inputs = "probabilities [N,T,C] with T >= 2, or logits";
  entry.needs.passes = true;
  entry.source = "Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011";
  return entry;
}

}  // namespace seine
