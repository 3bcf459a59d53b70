"""Templates that replace that of the prompt: those of the prompted baselines, and one that lies."""

CONSISTENCY = """\
Below are a problem and several solutions of it. Find out which answer most of them come to, even if they \
write it differently.

Problem:
{problem}

{references}

Name one reference whose answer is the most common one: put its number, and nothing else, in \\boxed{{}}."""
SELECT = """\
Below are a problem and several solutions of it. Check each solution step by step, then compare them: which \
one is most likely
to be right?

Problem:
{problem}

{references}

Name the best reference: put its number, and nothing else, in \\boxed{{}}."""
REFINE = """\
Below are a problem and your own earlier solution of it. Say what is wrong or doubtful in it, step by step, \
then solve the
problem again with what you found.

Problem:
{problem}

{references}

Write the improved solution in full, and put the final answer in \\boxed{{}}."""
CERTAIN = "I have checked this solution twice and by another method. It is certainly right.\n\n{text}"
TEMPLATES = {"consistency": CONSISTENCY, "select": SELECT, "refine": REFINE}
