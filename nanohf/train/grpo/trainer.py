"""TRL's GRPOTrainer for word problems: our order, the source's loss, and what its groups and phases are like."""

from trl import GRPOTrainer

from nanohf.recipe.trl_keys import PER_WORD_PROBLEM
from nanohf.train.grpo.loss_weights import word_problem_weights
from nanohf.train.grpo.word_problem_order import WordProblemOrder
from nanohf.train.phase_timer import Clock
from nanohf.train.trainer_guards import GuardedTrainer


class WordProblemTrainer(GuardedTrainer, GRPOTrainer):
    """TRL's trainer, which draws word problems in our order, times its phases and logs what its groups are like.

    With `loss_type: per_word_problem` the loss is the mean over word problems of the mean over their sampled tokens,
    however a generation is split over micro-batches, steps and processes. All other values of loss_type are TRL's.

    Phases: generation, reward, forward (with the loss), backward, optimizer, evaluation; all else is `other`: data,
    padding, advantages, clipping, logs, checkpoints.
    """

    num_generations: int

    def __init__(self, *, args, train_dataset, sources: list[int] | None = None, skip_settled: float = 0.0, **kwargs):
        """sources: how many word problems of the dataset each source has, one after another; None: there is one."""
        micro_batches = args.steps_per_generation * args.num_iterations  # that one generation serves
        self.order = WordProblemOrder(
            sources=sources or [len(train_dataset)],
            per_generation=args.generation_batch_size // args.num_generations,
            num_generations=args.num_generations,
            repeats=micro_batches,
            seed=args.seed,
            shuffle=args.shuffle_dataset,
            skip_settled=skip_settled,
            ahead=max(1, args.gradient_accumulation_steps // micro_batches),
        )
        super().__init__(args=args, train_dataset=train_dataset, **kwargs)
        self.per_word_problem = args.loss_type == PER_WORD_PROBLEM
        if self.per_word_problem:
            self.loss_type = "dapo"  # which divides by num_items_in_batch
        self.eos_token_ids = [*self.eos_token_ids, self.processing_class.bos_token_id]  # an end for our engine too
        self.clock = Clock(self.accelerator.device)
        self.add_callback(self.clock)
        self.add_callback(self.order)

    def _get_train_sampler(self, dataset=None):
        return self.order

    def training_step(self, model, inputs, num_items_in_batch=None):
        with self.clock.phase("backward"):
            return super().training_step(model, inputs, num_items_in_batch)

    def _prepare_inputs(self, generation_batch):
        with self.clock.phase("other"):
            return super()._prepare_inputs(generation_batch)

    def _generate(self, prompts):
        with self.clock.phase("generation"):
            return super()._generate(prompts)

    def compute_loss(self, *args, **kwargs):
        with self.clock.phase("forward"):
            return super().compute_loss(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        return batch | self._weighted(batch) if self.per_word_problem else batch

    def _weighted(self, batch: dict) -> dict:
        """What TRL's loss multiplies tokens with and divides by, changed so that each word problem counts the same."""
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)  # (completions, tokens)
        valid_tokens = self.accelerator.gather(mask.sum(1))  # groups may be split over processes
        weights, total = word_problem_weights(valid_tokens, self.num_generations)
        own = weights.split(len(mask))[self.accelerator.process_index]
        return {"tool_mask": mask * own[:, None], "num_items_in_batch": total}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """The rewards of all processes, (completions, 1), group by group."""
        with self.clock.phase("reward"):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rates = rewards.view(-1, self.num_generations).mean(1).tolist()
        self.order.rates.append(rates)
        self._log_metric("groups/all_wrong", rates.count(0) / len(rates))
        self._log_metric("groups/all_right", rates.count(1) / len(rates))
        for name in ("calls", "refused"):
            if name in inputs[0]:
                self._log_metric(f"calculator/{name}", sum(row[name] for row in inputs) / len(inputs))
        return rewards

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs |= self.clock.lap(self.state.global_step)
        super().log(logs, start_time)
