"""What transformers' Trainer lacks, for midtrain, sft and grpo: steps left out, checkpoints that are whole.

As in pretraining: a step without a finite loss and gradient is not applied, many in a row end the stage, and no weight
that is not finite is written. A checkpoint is written aside, sealed and renamed. It carries its batch and steps.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from nanohf import console
from nanohf.errors import RecipeError
from nanohf.runs.checkpoint_files import last_good, put_in_place
from nanohf.runs.stage_record import write_json
from nanohf.train.finite_weights import refuse_nonfinite

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object

NOTE = "stage_state.json"  # in a checkpoint: what of this stage the Trainer does not keep


@dataclass
class StageState:
    """What a checkpoint says beyond the Trainer's own state."""

    batch: dict  # of train.resuming.Batch
    sources: dict  # of data.source_state, when the stage began
    max_nonfinite_steps: int
    nonfinite_steps: int = 0  # not applied so far
    max_steps: int = -1
    generation_rows: int = 0  # of grpo: completions of one generation, over all processes


class GuardedTrainer(Base):
    """Stands before a Trainer among a class's bases."""

    model: PreTrainedModel
    failed_in_a_row = 0
    _losses: torch.Tensor | None = None  # of the step's micro-batches so far
    _logged_before: torch.Tensor  # _tr_loss before the step
    _partial: str | None = None

    def __init__(self, *, args, stage_state: StageState | None = None, **kwargs):
        args.logging_nan_inf_filter = False  # it would log a broken step as an average one
        super().__init__(args=args, **kwargs)
        self.stage_state = stage_state or StageState({}, {}, max_nonfinite_steps=10)

    def training_step(self, *args, **kwargs):
        if self._losses is None:
            self._logged_before = self._tr_loss.clone()
        loss = super().training_step(*args, **kwargs)
        self._losses = loss if self._losses is None else self._losses + loss
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """Called once per step, between its last backward and the optimizer."""
        assert self._losses is not None
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        mine = torch.stack([self._losses, torch.as_tensor(norm).to(self._losses)])
        loss, norm_everywhere = self.accelerator.reduce(mine, "mean").tolist()
        if math.isfinite(loss) and math.isfinite(norm_everywhere):
            self.failed_in_a_row = 0
        else:
            self._leave_out(loss, norm_everywhere)
        self._losses = None
        return norm

    def _leave_out(self, loss: float, norm: float) -> None:
        """The step is counted but not applied, and is not part of the loss that is logged."""
        self.accelerator.gradient_state._set_sync_gradients(False)  # accelerate's optimizer steps on synced ones only
        self._tr_loss = self._logged_before
        self._globalstep_last_logged += 1
        self.failed_in_a_row += 1
        self.stage_state.nonfinite_steps += 1
        step, most = self.state.global_step + 1, self.stage_state.max_nonfinite_steps
        console.warning(
            f"step {step:,}: loss {loss}, gradient norm {norm}: not applied ({self.failed_in_a_row} in a row)"
        )
        if self.failed_in_a_row == most:
            raise RecipeError(
                f"max_nonfinite_steps={most} steps in a row had no finite loss and gradient, at step {step:,} loss "
                f"{loss} and gradient norm {norm}. The last good checkpoint is "
                f"{last_good(self.folder)}; lower learning rates need a fresh start: "
                "--from with this stage"
            )

    @property
    def folder(self) -> Path:
        """Where the checkpoints are."""
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def _get_output_dir(self, trial):
        return self._partial or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial):
        """None while steps fail."""
        if self.failed_in_a_row:
            return
        folder = self.folder
        final = folder / f"checkpoint-{self.state.global_step}"
        refuse_nonfinite(self.model.named_parameters(), str(final), last_good(folder))
        partial = folder / ".partial" / final.name
        self._partial = str(partial.parent)
        try:
            if self.args.should_save:
                shutil.rmtree(self._partial, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._complete(partial, final)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(self._partial, ignore_errors=True)
            raise
        finally:
            self._partial = None
        self.accelerator.wait_for_everyone()

    def _complete(self, partial: Path, final: Path) -> None:
        if self.state.best_model_checkpoint == str(partial):
            self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
        self.stage_state.max_steps = self.state.max_steps
        write_json(partial / NOTE, vars(self.stage_state))
        put_in_place(partial, final)
        partial.parent.rmdir()
        rotate_checkpoints(str(final.parent), self.args.save_total_limit, self.state.best_model_checkpoint)
