def sampled_answer(*a): raise NotImplementedError(a[-1])
