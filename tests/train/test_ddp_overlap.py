"""DDP around the compiled model: its buckets leave for the other processes while the backward is still at work."""

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode


class Products(TorchDispatchMode):
    """Counts the matrix products within it."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += "mm" in str(function)
        return function(*arguments, **(named or {}))


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.slow
def test_buckets_leave_during_the_backward(group, small_model):
    torch._dynamo.reset()
    model = small_model(depth=3)
    # As the pretrain stage and accelerate nest them. Buckets of 1 MB, because this model has 7.
    ddp = DistributedDataParallel(torch.compile(model, backend=aot_eager, dynamic=False), bucket_cap_mb=1)
    products, sent_after = Products(), []

    def send(_, bucket):
        sent_after.append(products.count)
        sent = torch.futures.Future()
        sent.set_result(bucket.buffer())
        return sent

    ddp.register_comm_hook(None, send)
    ids = torch.randint(128, (2, 32))
    for _ in range(2):  # DDP orders its buckets by the first backward
        loss = ddp(input_ids=ids, labels=ids, use_cache=False).loss
        products.count = 0
        sent_after.clear()
        with products:
            loss.backward()
    assert len(sent_after) > 3
    assert sent_after[0] < products.count / 4
    assert len(set(sent_after)) > len(sent_after) / 2
