"""C loops of lattice-based encryption, see ``mpc.ot.lattice``; built where a C compiler is found."""

from numpy import ufunc

forward: ufunc
backward: ufunc
multiply_add: ufunc
drop: ufunc
residues: ufunc
