"""The training engine: one plain loop for every network that is trained here.

    optimisation.py   how weights are changed: optimiser, schedule, clipping, averaging, the linear rule
    trainer.py        a network in training: its steps, and all that changes as tensors
    loop.py           steps taken one after the other on batches that come from somewhere
    world.py          the processes that train together (torch elastic, DistributedDataParallel)
    batches.py        batches as tuples of tensors and lists: cut into pieces, moved to a device
    half_precision.py where bfloat16 pays on a CPU, and which layers keep float32

What happens at a step is a function of its number: photos, their variation and everything else that is drawn come from
seeds that the batch carries. So weights, moments, average, loss scale and the number of the step are all there is to
save, and a training that is killed at any step goes on bit for bit (CPU). Knows no files and no data.
"""
