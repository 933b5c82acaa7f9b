"""C loops of oblivious transfer, see ``mpc.ot``; built where a C compiler is found."""

from numpy import ufunc

transpose: ufunc
fold: ufunc
correct: ufunc
spread: ufunc
gather: ufunc
both: ufunc
restore: ufunc
evaluate: ufunc
evaluate_portable: ufunc
combine: ufunc
combine_portable: ufunc
route: ufunc
