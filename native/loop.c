/* Loaded by the agent with ctypes. */

int loop_version(void)
{
	return 1;
}
