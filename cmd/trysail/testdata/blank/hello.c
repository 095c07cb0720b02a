#include <stdio.h>
int main(int n, char **v) { printf("shipped %s by %s\n", v[1], v[2]); return n != 3; }
